"""CLS embeddings, computed once per image and backbone and cached on disk."""

import hashlib
import os
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import save
from transformers import PreTrainedModel

from cxr_assets.layout import Layout
from cxr_assets.learning import cache
from cxr_assets.progress import Progress, held
from cxr_assets.provenance import code_version, fingerprint
from cxr_assets.radiographs.dataset import DatasetRecord, batches, manifest
from cxr_serving.model.preprocessing import Preprocessing

_BATCH = 32
# Images between two saves: the most that an interruption loses.
_CHUNK = 16 * _BATCH


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
    with held(layout.embeddings_lock, "images are being embedded", progress):
        cache.clean(layout.embeddings)
        dataset = manifest(layout.processed).query("kept")["sha256"]
        cache.retain_in(layout.embeddings, set(dataset).__contains__, progress)
        path = layout.embeddings / f"{_key(backbone, size)}.safetensors"
        known = cache.load(path, progress)
        missing = images[~images["sha256"].isin(known)]
        if reused := len(images) - len(missing):
            progress(f"embeddings of {reused:,} images reused")
            os.utime(path)
        missing = missing.drop_duplicates("sha256")
        for start in range(0, len(missing), _CHUNK):
            chunk = missing.iloc[start : start + _CHUNK]
            pixels = batches(layout.processed, chunk["file"].tolist(), size, _BATCH)
            rows = _forward(backbone, pixels, Preprocessing(size)).numpy()
            known.update(zip(chunk["sha256"], rows, strict=True))
            cache.save(path, known)
            progress(f"embedded {start + len(chunk):,} of {len(missing):,} images")
        cache.prune(layout.embeddings)
    return torch.from_numpy(np.stack([known[image] for image in images["sha256"]]))


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
