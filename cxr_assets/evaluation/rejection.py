"""What the gate of a model rejects: of the evaluated images, and of what it should reject."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import f1_score

from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.subgroups import parts
from cxr_assets.radiographs import alteration, dataset
from cxr_assets.sampling import evenly
from cxr_serving.model import CONFIDENCE
from cxr_serving.model.bundle import Rejections
from cxr_serving.model.descriptor import describe
from cxr_serving.model.gate import Verdict
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.rejection import Altered, FalseRejection, Judged, JudgedPart, Selected

# Images of each altered kind: the interval of 100 of 100 starts at 0.96, and with some ten kinds
# they take about twice the forward passes of the test images of the Kermany set.
_ALTERED = 100
# Images that a model has learnt from, of which it computes what its network sees: those that look
# least like the others. All others are judged by what needs no network.
_SEEN = 500
_BATCH = 64
_SEED = 20260111

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


class Sample:
    """Some of N images that are read one batch after the other, spread evenly over them."""

    def __init__(self, images: int) -> None:
        """Expect N images."""
        self._chosen = frozenset(evenly(images, _ALTERED).tolist())
        self._seen = 0
        self._pixels: list[Pixels] = []

    def add(self, pixels: Pixels) -> None:
        """Take the next B images, uint8 [B, size, size], into account."""
        for index, image in enumerate(pixels, self._seen):
            if index in self._chosen:
                self._pixels.append(image.copy())  # a view would keep the whole batch in memory
        self._seen += len(pixels)

    def pixels(self) -> Pixels:
        """At most 100 images, uint8 [n, size, size]."""
        return np.stack(self._pixels)


def judged(verdicts: Sequence[Verdict]) -> Judged:
    """How many of some images are rejected, and why."""
    rejected = sum(not verdict.accepted for verdict in verdicts)
    reasons = Counter(reason for verdict in verdicts for reason in verdict.reasons)
    return Judged(
        **dict(Rejections.of(rejected, len(verdicts))), reasons=dict(reasons.most_common())
    )


def false_rejection(images: Images, verdicts: Sequence[Verdict]) -> FalseRejection:
    """Rejection of N labelled radiographs: in all, by class and by subgroup."""

    def of(member: Mask) -> Judged:
        return judged([verdict for verdict, here in zip(verdicts, member, strict=True) if here])

    labels = images.table["class"].to_numpy()
    return FalseRejection(
        total=judged(verdicts),
        classes={str(name): of(labels == name) for name in np.unique(labels)},
        subgroups=[
            JudgedPart(group=group, subgroup=name, **dict(of(member)))
            for group, name, member in parts(images.table)
        ],
    )


def learned(predictor: Predictor, processed: Path, rows: pd.DataFrame) -> list[Verdict]:
    """Judge images that a model was trained or selected on.

    All are judged by their descriptors and colour. Only the 500 whose descriptors are farthest from
    those of other training images take a forward pass, for the distance by the network's features,
    which is taken for 0 of the others: training images are those it was fitted to.

    Args:
        predictor: a model with a gate.
        processed: the processed dataset.
        rows: of its manifest.

    Returns:
        One for each row.

    Raises:
        DatasetError: an image cannot be read.
    """
    assert predictor.gate is not None
    files, size = rows["file"].tolist(), predictor.record.input_size
    colour, nearest = rows["colour"].to_numpy(np.float32), predictor.gate.features.means[:1]
    verdicts, unlike = list[Verdict](), []
    for pixels in dataset.batches(processed, files, size, _BATCH):
        tints = colour[len(verdicts) : len(verdicts) + len(pixels)]
        given = describe(pixels), tints, nearest.repeat(len(pixels), axis=0)
        verdicts += predictor.gate.verdicts(*given)
        unlike.append(predictor.gate.scores(*given)["unlike_training"])
    seen = np.sort(np.argsort(-np.concatenate(unlike), kind="stable")[:_SEEN])
    for some in np.split(seen, range(_BATCH, len(seen), _BATCH)):
        pixels = dataset.read(processed, [files[index] for index in some], size)
        answers = predictor.answer(pixels, colour[some].tolist())
        for index, verdict in zip(some, answers.verdicts or (), strict=True):
            verdicts[index] = verdict
    return verdicts


def altered(predictor: Predictor, pixels: Pixels) -> dict[str, Altered]:
    """Rejection by kind of alteration, and of pictures that are made instead of the images.

    Args:
        predictor: without a gate, nothing is judged.
        pixels: uint8 [n, size, size], that the gate was not fitted on.
    """
    found: dict[str, Altered] = {}
    for kind in alteration.ALTERATIONS:
        answers = predictor.answer(alteration.apply(kind, pixels, _SEED))
        if answers.verdicts is None:
            break
        doubtful = uncertain(answers.probabilities)
        rejected = np.array([not verdict.accepted for verdict in answers.verdicts])
        found[kind] = Altered(
            **dict(judged(answers.verdicts)),
            uncertain=int(doubtful.sum()),
            withheld=int((doubtful | rejected).sum()),
        )
    return found


def selective(
    probabilities: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    drawn: torch.Tensor,
    verdicts: Sequence[Verdict],
) -> dict[str, Selected]:
    """Metrics on the images that are left when gate, uncertainty or both take some out.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.
        classes: C names.
        drawn: what :func:`cxr_assets.evaluation.bootstrap.draws` returns for the images.
        verdicts: N of them.
    """
    accepted = np.array([verdict.accepted for verdict in verdicts])
    certain = ~uncertain(probabilities)
    return {
        name: _selected(probabilities, targets, classes, drawn, left)
        for name, left in (
            ("all", np.ones_like(accepted)),
            ("accepted", accepted),
            ("certain", certain),
            ("accepted and certain", accepted & certain),
        )
    }


def uncertain(probabilities: npt.NDArray[np.float32]) -> Mask:
    """Which answers [N] of probabilities [N, C] a service calls uncertain by default."""
    found: Mask = probabilities.max(axis=1) < CONFIDENCE
    return found


def _selected(
    probabilities: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    drawn: torch.Tensor,
    left: Mask,
) -> Selected:
    if not left.any():
        return Selected(
            images=0, accuracy=None, interval=None, macro_f1=None, macro_f1_interval=None
        )
    truth, predicted = targets[left], probabilities[left].argmax(axis=1)
    f1 = f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    draws = bootstrap.top1(probabilities, targets, classes, drawn, left)
    return Selected(
        images=int(left.sum()),
        accuracy=round(float((truth == predicted).mean()), 6),
        interval=bootstrap.interval(draws["accuracy"]),
        macro_f1=round(float(f1), 6),
        macro_f1_interval=bootstrap.interval(draws["macro_f1"]),
    )
