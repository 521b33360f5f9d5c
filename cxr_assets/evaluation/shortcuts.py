"""How far one gets without looking at the lungs."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.metrics import evaluate

_FOLDS = 5
_TREES = 100
# A ring two cells wide of an image reduced to 32 x 32: an eighth of each side lies in it.
_CELLS = 32
_RING = 2


def shortcuts(
    images: Images,
    pixels: Iterable[npt.NDArray[np.uint8]],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Scores of classifiers that see only the frame, or only the border, of each image.

    Random forests, trained and asked on these images in five folds that keep a patient together.
    What they reach, a network could reach without medicine. In the Kermany set the frame alone goes
    far.

    Args:
        images: N images.
        pixels: the N of them as the network takes them, uint8 [..., size, size], one by one or in
            batches; none is kept.
        classes: C names.

    Returns:
        ``frame`` (width, height and their ratio) and ``border`` (the outermost sixteenth of the
        pixels on each side), each with ``macro_f1``, ``accuracy``, ``auroc_macro_ovr``, or with
        ``reason`` where it could not be asked.
    """
    width, height = (images.table[name].to_numpy(np.float64) for name in ("width", "height"))
    frame = np.stack([width, height, width / height], axis=1)
    return {
        "frame": _audit(frame, images, classes),
        "border": _audit(_border(pixels), images, classes),
    }


def _audit(
    features: npt.NDArray[np.floating[Any]], images: Images, classes: tuple[str, ...]
) -> dict[str, Any]:
    targets = images.targets(classes)
    present = np.unique(targets)
    patients = images.table.groupby("class")["patient"].nunique()
    if len(present) < 2 or patients.min() < _FOLDS:
        return {"reason": f"needs two classes with {_FOLDS} patients each"}
    if (features == features[0]).all():
        return {"reason": "it is the same for all images"}
    probabilities = cross_val_predict(
        RandomForestClassifier(_TREES, min_samples_leaf=3, class_weight="balanced", random_state=0),
        features,
        targets,
        groups=images.table["patient"],
        cv=StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0),
        method="predict_proba",
    )
    complete = np.zeros((len(targets), len(classes)))
    complete[:, present] = probabilities
    scores = evaluate(complete, targets, classes)
    return {name: scores[name] for name in ("macro_f1", "accuracy", "auroc_macro_ovr")}


def _border(images: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Means of the cells of the ring, float32 [N, cells]."""
    inside = torch.zeros(_CELLS, _CELLS, dtype=torch.bool)
    inside[_RING:-_RING, _RING:-_RING] = True
    rings = []
    for some in images:
        pixels = torch.from_numpy(some).float().reshape(-1, 1, *some.shape[-2:])
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels, _CELLS).squeeze(1)
        rings.append(cells[:, ~inside].numpy())
    return np.concatenate(rings)
