"""Fitting the gate of a bundle: on training images, with thresholds from validation images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.covariance import ledoit_wolf

from cxr_assets.radiographs import alteration, dataset
from cxr_assets.radiographs.alteration import EXPECTED
from cxr_assets.sampling import evenly
from cxr_serving.model import descriptor
from cxr_serving.model.bundle import GateCheck, GateRecord, Rejections
from cxr_serving.model.gate import CHECKS, REASONS, REPAIRS, Check, Gate, Likeness, Reason

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# Features float32 [N, C] of images uint8 [N, size, size], as the network in ONNX gives them.
Network = Callable[[Images], Floats]

# More images than these say little more, and export should be quick: training images for the
# descriptors, those of them that the network sees, altered ones of a kind, and validation images.
_DESCRIBED = 2000
_SEEN = 500
_ALTERED = 300
_VALIDATION = 2000
# Altered validation images of a kind that are counted.
_MEASURED = 100
# Pictures of a kind that the network sees, to find where its distances leave those of radiographs.
_PICTURES = 20
# With fewer training or validation images nothing is fitted: they say too little of others.
_FEWEST = (100, 30)
# With fewer validation images the end of their distribution is taken for that of a normal one.
_FEW = 300
# Share of validation images that all checks together may reject, and the part of it that is for
# each check but "flipped", which separates least and gets what is left.
_FALSE = 0.01
_PART = 0.2
# Shrinkage of covariances towards a multiple of the identity, for the two linear functions.
_SHRINKAGE = 0.2
# Mean chroma above which a file is in colour: that of JPEGs of grey images stays below 0.02.
_COLOUR = 0.06
# Images in memory at once, but for those that are altered.
_BATCH = 16
# Directions with a variance of their own; the others share one.
AXES = 128
_SEED = 20260104
_UNLIMITED = np.array([_COLOUR if check == "colour" else np.inf for check in CHECKS], np.float32)

_MADE = tuple(kind for kind, reason in EXPECTED.items() if reason == "not_chest")


def fit(
    processed: Path, classes: tuple[str, ...], size: int, network: Network, features: Floats
) -> tuple[Gate, GateRecord]:
    """Fit a gate, the same for the same dataset and network on the same machine.

    Args:
        processed: the processed dataset.
        classes: of the model, in index order.
        size: of its input.
        network: gives features.
        features: of all validation images, in the order of :func:`dataset.kept`.

    Returns:
        The gate, and what it rejects. With few images it checks the colour alone.
    """
    train, val = (dataset.kept(processed, split) for split in ("train", "val"))
    chosen = evenly(len(val), _VALIDATION)
    val, features = val.iloc[chosen], features[chosen]
    if len(train) < _FEWEST[0] or len(val) < _FEWEST[1]:
        gate = _colour_alone(features.shape[1])
        coloured = val["colour"] > _COLOUR
        reasons: list[tuple[Reason, ...]] = [("colour",) if one else () for one in coloured]
        return gate, _record(gate, len(train), reasons, {})
    held = _Images(processed, val, size)
    known = _Images(processed, train.iloc[evenly(len(train), _DESCRIBED)], size)
    gate = _fitted(known, dataset.labels(known.rows, classes), network)
    gate = replace(gate, thresholds=_thresholds(gate, held, features, network))
    colour = val["colour"].to_numpy(np.float32)
    judged = gate.verdicts(held.described, colour, features)
    reasons = [verdict.reasons for verdict in judged]
    return gate, _record(gate, len(known.rows), reasons, _found(gate, held, features))


class _Images:
    """Images of the processed dataset, of which few are in memory at once."""

    def __init__(self, processed: Path, rows: pd.DataFrame, size: int) -> None:
        self.rows = rows
        self._processed = processed
        self._size = size

    @cached_property
    def described(self) -> Floats:
        return self.each(descriptor.describe, len(self.rows))

    def some(self, most: int) -> Images:
        """At most ``most`` images, evenly spread."""
        files = self.rows["file"].iloc[evenly(len(self.rows), most)].tolist()
        return dataset.read(self._processed, files, self._size)

    def each(self, compute: Callable[[Images], Floats], most: int) -> Floats:
        """What is computed of these images, one row for each."""
        files = self.rows["file"].iloc[evenly(len(self.rows), most)].tolist()
        batches = dataset.batches(self._processed, files, self._size, _BATCH)
        return np.concatenate([compute(batch) for batch in batches])


def _fitted(images: _Images, labels: npt.NDArray[np.int64], network: Network) -> Gate:
    described = images.described
    return Gate(
        chest=_direction(described, _no_chests(images)),
        side=_direction(described, descriptor.flipped(described)),
        picture=_likeness(described, np.zeros(len(described), np.int64)),
        features=_likeness(images.each(network, _SEEN), labels[evenly(len(labels), _SEEN)]),
        thresholds=_UNLIMITED,
    )


def _colour_alone(features: int) -> Gate:
    zero = np.zeros(descriptor.LENGTH, np.float32)
    anything = Likeness.to_anything
    return Gate(zero, zero, anything(descriptor.LENGTH), anything(features), _UNLIMITED)


def _no_chests(images: _Images) -> Floats:
    """Descriptors of what is no upright chest: made pictures, and altered training images."""
    some = images.some(_ALTERED)
    made = [descriptor.describe(alteration.apply(kind, some, _SEED)) for kind in _MADE]
    described = images.described[evenly(len(images.rows), _ALTERED)]
    turned = [descriptor.turned(described, quarters) for quarters in (1, 2, 3)]
    return np.concatenate([*made, *turned, descriptor.inverted(described)])


def _direction(ours: Floats, theirs: Floats) -> Floats:
    """Fisher's linear discriminant, higher for ``theirs``: float32 [D] of points [N, D], [M, D]."""
    within = (np.cov(ours, rowvar=False) + np.cov(theirs, rowvar=False)) / 2
    within[np.diag_indices(len(within))] += _SHRINKAGE * within.diagonal().mean()
    direction: Floats = np.linalg.solve(within, theirs.mean(axis=0) - ours.mean(axis=0))
    return direction.astype(np.float32)


def _likeness(points: Floats, labels: npt.NDArray[np.int64]) -> Likeness:
    """Of points [N, D], with a mean for each class and one covariance within all."""
    names, of = np.unique(labels, return_inverse=True)
    means = np.stack([points[labels == name].mean(axis=0) for name in names])
    covariance, _ = ledoit_wolf((points - means[of]).astype(np.float64), assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], values[-1] * 1e-6 + 1e-12), vectors[:, ::-1]
    wide = min(AXES, len(values) // 2)
    precision = 1 / values[wide:].mean()
    axes = vectors[:, :wide] * np.sqrt(np.maximum(precision - 1 / values[:wide], 0))
    return Likeness(
        means.astype(np.float32), axes.astype(np.float32), np.array([precision], np.float32)
    )


def _thresholds(gate: Gate, images: _Images, features: Floats, network: Network) -> Floats:
    scores = gate.scores(images.described, _grey(len(features)), features)
    some = images.some(_PICTURES)
    pictures = np.concatenate([alteration.apply(kind, some, _SEED) for kind in _MADE])
    foreign = descriptor.describe(pictures)
    apart = gate.scores(foreign, _grey(len(pictures)), network(pictures))
    allowed = int(_FALSE * len(features))
    found: dict[Check, float] = {"colour": _COLOUR}
    rejected = np.zeros(len(features), bool)
    for check in ("not_chest", "unlike_training"):
        found[check] = _threshold(scores[check], apart[check], int(_PART * allowed))
        rejected |= scores[check] > found[check]
    found["flipped"] = _threshold(
        scores["flipped"], -scores["flipped"], max(0, allowed - int(rejected.sum()))
    )
    return np.array([found[check] for check in CHECKS], np.float32)


def _threshold(ours: Floats, theirs: Floats, allowed: int) -> float:
    """A value that at most ``allowed`` of ``ours`` exceed.

    Where nearly all of ``theirs`` are beyond, it is half way to them: other hospitals' images
    differ from these, and so do other pictures from those made here.
    """
    least = float(np.sort(ours)[-1 - allowed])
    if len(ours) < _FEW:
        least = max(least, float(ours.mean() + 3 * ours.std()))
    beyond = float(np.quantile(theirs, 0.01))
    return max(least, (least + beyond) / 2)


def _found(gate: Gate, images: _Images, features: Floats) -> dict[Reason, list[bool]]:
    """Whether each altered image is rejected for what it is, by reason."""
    found: dict[Reason, list[bool]] = {}
    some = images.some(_MEASURED)
    # Features do not matter to these reasons: those of the unaltered images do as well.
    theirs = features[evenly(len(features), _MEASURED)]
    for kind, reason in EXPECTED.items():
        altered = gate.judge(alteration.apply(kind, some, _SEED + 1), _grey(len(some)), theirs)
        found.setdefault(reason, []).extend(reason in verdict.reasons for verdict in altered)
    return found


def _record(
    gate: Gate,
    training: int,
    verdicts: Sequence[Sequence[Reason]],
    found: Mapping[Reason, list[bool]],
) -> GateRecord:
    checks = {}
    for reason in REASONS:
        check = "not_chest" if reason in REPAIRS else reason
        threshold = float(gate.thresholds[CHECKS.index(check)])
        checks[reason] = GateCheck(
            threshold=threshold if np.isfinite(threshold) else None,
            validation=_count([reason in reasons for reasons in verdicts]),
            found=_count(found[reason]) if reason in found else None,
        )
    return GateRecord(
        training=training, validation=_count([bool(reasons) for reasons in verdicts]), checks=checks
    )


def _grey(images: int) -> Floats:
    return np.zeros(images, np.float32)


def _count(rejected: list[bool]) -> Rejections:
    return Rejections.of(sum(rejected), len(rejected))
