"""CLS embeddings, computed once per image and backbone and cached on disk."""

import hashlib
import os

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from tqdm import tqdm
from transformers import PreTrainedModel

from cxr_assets.layout import Layout
from cxr_assets.learning import cache
from cxr_assets.learning.backbone import MakesEmbedder, accelerator, embedder
from cxr_assets.progress import Progress, held
from cxr_assets.provenance import code_version, fingerprint
from cxr_assets.radiographs.dataset import DatasetRecord, manifest
from cxr_serving.model.preprocessing import Preprocessing

# Images between two saves: the most that an interruption loses, or an eighth of those that are
# there, if that is more: a save writes all of them, and so all saves together are in proportion.
_CHUNK, _SHARE = 512, 8


def embed(
    backbone: PreTrainedModel,
    layout: Layout,
    images: pd.DataFrame,
    progress: Progress,
    embedder: MakesEmbedder = embedder,
) -> torch.Tensor:
    """CLS embeddings of images of the processed dataset; only missing ones are computed.

    The cache (``layout.embeddings``) is keyed by the backbone's weights, the preprocessing and the
    code, and by each image's content. Seed, split and settings of the head do not matter, and new
    images do not invalidate it. Images that have left the dataset leave it, for every backbone.

    Args:
        backbone: a DINOv2; it is put in eval mode.
        layout: where dataset and embeddings are.
        images: rows of the dataset's manifest.
        progress: called with a line per 512 images or more; a terminal also gets a bar.
        embedder: what embeds, and where.

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
        if len(missing):
            missing = missing.drop_duplicates("sha256")
            compute = embedder(backbone, Preprocessing(size))
            with tqdm(total=len(missing), desc="embedding", unit=" images", disable=None) as bar:
                rows = compute(layout.processed, missing["file"].tolist())
                next_save = max(_CHUNK, len(known) // _SHARE)
                for done, (image, row) in enumerate(zip(missing["sha256"], rows, strict=True), 1):
                    known[image] = row
                    bar.update()
                    if done < min(next_save, len(missing)):
                        continue
                    next_save = done + max(_CHUNK, len(known) // _SHARE)
                    cache.save(path, known)
                    with bar.external_write_mode():
                        progress(f"embedded {done:,} of {len(missing):,} images")
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
        "device": str(accelerator() or "cpu"),
        "code": code_version(__name__),
    }
    return fingerprint(content)[:32]
