"""The cache of embeddings: a file for each backbone, with a row for each image."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as packed

from cxr_assets.layout import Layout
from cxr_assets.progress import Progress, held
from cxr_serving.model import atomic

# About 10 MB each: enough to compare two backbones at two input sizes.
_KEPT_FILES = 4
_NAME = re.compile(r"[0-9a-f]{32}")


def forget(layout: Layout, images: Iterable[str], progress: Progress) -> int:
    """Delete the embeddings of images, of every backbone.

    Args:
        layout: where the embeddings are.
        images: sha256 of the source images, hexadecimal.
        progress: called with a line before it waits for another process.

    Returns:
        How many were deleted.
    """
    forgotten = frozenset(images)
    return retain(layout, lambda image: image not in forgotten, progress)


def retain(layout: Layout, wanted: Callable[[str], bool], progress: Progress) -> int:
    """Delete the embeddings of all other images, of every backbone.

    Args:
        layout: where the embeddings are.
        wanted: whether an image stays, by the sha256 of its source.
        progress: called with a line before it waits for another process.

    Returns:
        How many were deleted.
    """
    if not layout.embeddings.exists():
        return 0
    with held(layout.embeddings_lock, "images are being embedded", progress):
        clean(layout.embeddings)
        return retain_in(layout.embeddings, wanted, lambda line: None)


def retain_in(directory: Path, wanted: Callable[[str], bool], progress: Progress) -> int:
    """Delete the embeddings of unwanted images from every file; returns how many there were.

    A broken file may hold any image: it is deleted.
    """
    deleted = 0
    for path in _files(directory):
        status, known = path.stat(), load(path, progress)
        kept = {image: row for image, row in known.items() if wanted(image)}
        if not kept:
            path.unlink()
        elif len(kept) < len(known):
            save(path, kept)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # not used by this
        deleted += len(known) - len(kept)
    return deleted


def load(path: Path, progress: Progress) -> dict[str, npt.NDArray[np.float32]]:
    """Embedding, float32 [hidden], by sha256 of the source image; empty if the file is broken."""
    try:
        with safe_open(path, framework="np") as file:
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


def save(path: Path, embeddings: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Replace a file of embeddings, by sha256 of the source image, whole."""
    images = np.array([list(bytes.fromhex(image)) for image in embeddings], dtype=np.uint8)
    rows = np.stack(list(embeddings.values()))
    content = packed({"images": images, "embeddings": rows}, {"sha256": _checksum(images, rows)})
    atomic.write_file(path, content)


def _checksum(*arrays: npt.NDArray[np.generic]) -> str:
    return hashlib.sha256(packed(dict(zip("ab", arrays, strict=True)))).hexdigest()


def _files(directory: Path) -> list[Path]:
    """Those of all backbones, the least recently used one first."""
    ours = (path for path in directory.glob("*.safetensors") if _NAME.fullmatch(path.stem))
    return sorted(ours, key=lambda file: file.stat().st_mtime_ns)


def clean(directory: Path) -> None:
    """Delete what interrupted writes left."""
    for leftover in directory.glob(".*.safetensors.*"):
        leftover.unlink()


def prune(directory: Path) -> None:
    """Keep the most recently used files."""
    for path in _files(directory)[:-_KEPT_FILES]:
        path.unlink()
