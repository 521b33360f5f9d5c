"""CLS embeddings, computed once per image and backbone and cached on disk."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers import PreTrainedModel

from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.provenance import code_version, fingerprint
from cxr_assets.radiographs.dataset import DatasetRecord, batches, manifest
from cxr_serving.model import atomic
from cxr_serving.model.preprocessing import Preprocessing

_BATCH = 32
# Images between two saves: the most that an interruption loses.
_CHUNK = 16 * _BATCH
# About 10 MB each: enough to compare two backbones at two input sizes.
_KEPT_FILES = 4
_NAME = re.compile(r"[0-9a-f]{32}")


def embed(
    backbone: PreTrainedModel, layout: Layout, images: pd.DataFrame, progress: Progress
) -> torch.Tensor:
    """CLS embeddings of images of the processed dataset; only missing ones are computed.

    The cache (``layout.embeddings``) is keyed by the backbone's weights, the preprocessing and the
    code, and by each image's content. Seed, split and settings of the head do not matter, and new
    images do not invalidate it. Images that have left the dataset leave it, for every backbone.

    Args:
        backbone: a DINOv2; it is put in eval mode.
        layout: where dataset and embeddings are.
        images: rows of the dataset's manifest.
        progress: called with a line per 512 images.

    Returns:
        float32 [N, hidden] on the CPU, in the order of ``images``.

    Raises:
        DatasetError: an image is missing.
    """
    size = DatasetRecord.read(layout.processed).image_size
    layout.embeddings.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.embeddings / ".lock"):
        _clean(layout.embeddings)
        dataset = manifest(layout.processed).query("kept")["sha256"]
        _retain(layout.embeddings, set(dataset).__contains__, progress)
        path = layout.embeddings / f"{_key(backbone, size)}.safetensors"
        known = _load(path, progress)
        missing = images[~images["sha256"].isin(known)]
        if reused := len(images) - len(missing):
            progress(f"embeddings of {reused:,} images reused")
            os.utime(path)
        missing = missing.drop_duplicates("sha256")
        for start in range(0, len(missing), _CHUNK):
            chunk = missing.iloc[start : start + _CHUNK]
            pixels = batches(layout.processed, chunk["file"].tolist(), size, _BATCH)
            rows = _forward(backbone, pixels, Preprocessing(size))
            known.update(zip(chunk["sha256"], rows, strict=True))
            _save(path, known)
            progress(f"embedded {start + len(chunk):,} of {len(missing):,} images")
        _prune(layout.embeddings)
    return torch.stack([known[image] for image in images["sha256"]])


def forget(layout: Layout, images: Iterable[str]) -> int:
    """Delete the embeddings of images, of every backbone.

    Args:
        layout: where the embeddings are.
        images: sha256 of the source images, hexadecimal.

    Returns:
        How many were deleted.
    """
    forgotten = frozenset(images)
    return retain(layout, lambda image: image not in forgotten)


def retain(layout: Layout, wanted: Callable[[str], bool]) -> int:
    """Delete the embeddings of all other images, of every backbone.

    Args:
        layout: where the embeddings are.
        wanted: whether an image stays, by the sha256 of its source.

    Returns:
        How many were deleted.
    """
    if not layout.embeddings.exists():
        return 0
    with FileLock(layout.embeddings / ".lock"):
        _clean(layout.embeddings)
        return _retain(layout.embeddings, wanted, lambda line: None)


def _retain(directory: Path, wanted: Callable[[str], bool], progress: Progress) -> int:
    """Delete the embeddings of unwanted images from every file; returns how many there were.

    A broken file may hold any image: it is deleted.
    """
    deleted = 0
    for path in _files(directory):
        status, known = path.stat(), _load(path, progress)
        kept = {image: row for image, row in known.items() if wanted(image)}
        if not kept:
            path.unlink()
        elif len(kept) < len(known):
            _save(path, kept)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # not used by this
        deleted += len(known) - len(kept)
    return deleted


def _key(backbone: PreTrainedModel, size: int) -> str:
    """Digest of everything besides the image that an embedding depends on."""
    config = backbone.config.to_dict()
    # A network that was saved and loaded has these; the weights and their hash say the same.
    for name in ("_name_or_path", "architectures", "dtype"):
        config.pop(name, None)
    weights = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    content = {
        "network": config,
        "weights": hashlib.sha256(save(weights)).hexdigest(),
        "preprocessing": Preprocessing(size).config(),
        "code": code_version(__name__),
    }
    return fingerprint(content)[:32]


@torch.inference_mode()
def _forward(
    backbone: PreTrainedModel,
    images: Iterable[npt.NDArray[np.uint8]],
    preprocessing: Preprocessing,
) -> torch.Tensor:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    backbone = backbone.eval().to(device)
    embeddings = []
    for batch in map(torch.from_numpy, images):
        # Always the same batch size: kernels may round differently for another one.
        full = torch.cat([batch, batch[-1:].expand(_BATCH - len(batch), -1, -1)]).to(device)
        output = backbone(pixel_values=preprocessing.normalise(full)).last_hidden_state
        embeddings.append(output[: len(batch), 0].float().cpu())
    return torch.cat(embeddings)


def _load(path: Path, progress: Progress) -> dict[str, torch.Tensor]:
    """Embedding [hidden] by sha256 of the source image; empty if the file is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            images, rows = file.get_tensor("images"), file.get_tensor("embeddings")
            checksum = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        return {}
    except SafetensorError as error:
        progress(f"{path} is broken ({error}): its images are embedded again")
        return {}
    if checksum != _checksum(images, rows):
        progress(f"{path} is broken (its checksum does not match): its images are embedded again")
        return {}
    return dict(zip((bytes(image.tolist()).hex() for image in images), rows, strict=True))


def _save(path: Path, embeddings: Mapping[str, torch.Tensor]) -> None:
    images = torch.tensor([list(bytes.fromhex(image)) for image in embeddings], dtype=torch.uint8)
    rows = torch.stack(list(embeddings.values()))
    content = save({"images": images, "embeddings": rows}, {"sha256": _checksum(images, rows)})
    atomic.write_file(path, content)


def _checksum(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(save(dict(zip("ab", tensors, strict=True)))).hexdigest()


def _files(directory: Path) -> list[Path]:
    """Those of all backbones, the least recently used one first."""
    ours = (path for path in directory.glob("*.safetensors") if _NAME.fullmatch(path.stem))
    return sorted(ours, key=lambda file: file.stat().st_mtime_ns)


def _clean(directory: Path) -> None:
    """Delete what interrupted writes left."""
    for leftover in directory.glob(".*.safetensors.*"):
        leftover.unlink()


def _prune(directory: Path) -> None:
    """Keep the most recently used files."""
    for path in _files(directory)[:-_KEPT_FILES]:
        path.unlink()
