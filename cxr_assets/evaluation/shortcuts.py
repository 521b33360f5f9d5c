"""What a classifier reaches without seeing the lungs."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.metrics import evaluate
from cxr_serving.model.report import Audit, NoAudit, Shortcuts

_FOLDS = 5
_TREES = 100
# A ring two cells wide of an image reduced to 32 x 32: an eighth of each side lies in it.
_CELLS = 32
_RING = 2


def shortcuts(
    images: Images,
    borders: npt.NDArray[np.float32],
    classes: tuple[str, ...],
    macro_f1: float,
) -> Shortcuts:
    """Metrics of classifiers that see only the frame, or only the border, of each image.

    Random forests, cross-validated on these images in five folds that keep a patient together.
    A network could reach the same without any medical content. In the Kermany set the frame alone
    separates the classes well.

    Args:
        images: N images.
        borders: float32 [N, cells], what :func:`border` returns for them.
        classes: C names.
        macro_f1: of the model on the same images.

    Returns:
        Audits of the ``frame`` (width, height and their ratio) and of the ``border`` (the outermost
        sixteenth of the pixels on each side).
    """
    width, height = (images.table[name].to_numpy(np.float64) for name in ("width", "height"))
    frame = np.stack([width, height, width / height], axis=1)
    return Shortcuts(
        frame=_audit(frame, images, classes, macro_f1),
        border=_audit(borders, images, classes, macro_f1),
    )


def _audit(
    features: npt.NDArray[np.floating[Any]],
    images: Images,
    classes: tuple[str, ...],
    macro_f1: float,
) -> Audit | NoAudit:
    targets = images.targets(classes)
    present = np.unique(targets)
    patients = images.table.groupby("class")["patient"].nunique()
    if len(present) < 2 or patients.min() < _FOLDS:
        return NoAudit(reason=f"needs two classes with {_FOLDS} patients each")
    if (features == features[0]).all():
        return NoAudit(reason="it is the same for all images")
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
    return Audit(
        macro_f1=scores.macro_f1,
        accuracy=scores.accuracy,
        auroc_macro_ovr=scores.auroc_macro_ovr,
        gain=round(macro_f1 - scores.macro_f1, 6),
    )


def border(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The border of images as the network takes them, in coarse cells.

    Args:
        images: uint8 [N, size, size].

    Returns:
        float32 [N, cells]: the mean grey level of each cell of the border, in 0..255.
    """
    inside = torch.zeros(_CELLS, _CELLS, dtype=torch.bool)
    inside[_RING:-_RING, _RING:-_RING] = True
    pixels = torch.from_numpy(images).float().unsqueeze(1)
    cells = torch.nn.functional.adaptive_avg_pool2d(pixels, _CELLS).squeeze(1)
    means: npt.NDArray[np.float32] = cells[:, ~inside].numpy()
    return means
