"""Distillation: a frozen, pretrained network as the teacher of the main network.

Beside the classes, a linear head on the features that the classifier reads regresses the teacher's
embedding of each training image (Romero et al. 2015, arXiv 1412.6550). Training alone has the head:
no exported file holds it, and the model needs no teacher to answer.

The teacher is the probe's backbone, so that each image is embedded once for both.
"""

import torch

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.backbone import MakesEmbedder, embedder
from cxr_assets.learning.embeddings import embed
from cxr_assets.progress import Progress
from cxr_assets.radiographs.dataset import DatasetRecord, kept


def targets(
    experiment: Experiment,
    layout: Layout,
    progress: Progress,
    embedder: MakesEmbedder = embedder,
) -> torch.Tensor:
    """What the network learns of each training image from the teacher.

    It is the embedding of the image as it is in the dataset, however the image is augmented: a
    flipped one has the same target, as the network is to answer both alike.

    Args:
        experiment: its probe names the teacher.
        layout: where dataset and embeddings are.
        progress: called with a line per 512 images.
        embedder: what embeds the images.

    Returns:
        float32 [N, hidden], standardised: each dimension has mean 0 and standard deviation 1 over
        the training split. In the order of :func:`cxr_assets.radiographs.dataset.kept`.

    Raises:
        PretrainedError: the teacher's weights are not available.
        DatasetError: an image is missing.
    """
    probe = experiment.probe
    if probe.pretrained is None:
        raise ValueError("probe.pretrained is null, which Experiment rejects with distillation")
    size = DatasetRecord.read(layout.processed).image_size
    # Building the teacher must not change the random numbers of the training.
    with torch.random.fork_rng(devices=[]):
        teacher = networks.dinov2(probe, size, experiment.classes)
        images = kept(layout.processed, "train")
        embeddings = embed(teacher, layout, images, progress, embedder)
    embeddings = embeddings.double()
    centred = embeddings - embeddings.mean(dim=0)
    # Less is rounding error, as in the probe.
    scale = centred.square().mean(dim=0).sqrt().clamp_min(1e-6)
    return (centred / scale).float()
