"""Fitting the gate of a bundle: on training images, with thresholds from validation images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from cxr_assets.radiographs import alteration, dataset
from cxr_assets.radiographs.alteration import EXPECTED
from cxr_serving.model.bundle import GateCheck, GateRecord, Rejections
from cxr_serving.model.descriptor import describe
from cxr_serving.model.gate import LEARNT, REASONS, Gate, Reason

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# The features of images, as the network in ONNX gives them.
Features = Callable[[Images], Floats]

# More say no more, and export should be quick.
_TRAINING = 1000
_ALTERED = 300
# Share of validation images that all checks together may reject.
_FALSE = 0.01
# Mean chroma above which a file counts as coloured; what JPEG makes of grey stays below 0.02.
_COLOUR = 0.06
_SEED = 20260104


def fit(
    processed: Path, classes: tuple[str, ...], size: int, features: Features
) -> tuple[Gate, GateRecord]:
    """Fit a gate, the same for the same dataset and network on the same machine.

    Args:
        processed: the processed dataset.
        classes: of the model, in index order.
        size: of its input.
        features: of the network.
    """
    rows = dataset.kept(processed, "train")
    rows = rows.iloc[np.linspace(0, len(rows) - 1, min(_TRAINING, len(rows))).astype(int)]
    images = dataset.read(processed, rows["file"].tolist(), size)
    labels = dataset.labels(rows, classes)
    weights, bias = _learn(images)
    means, whitening = _centres(features(images), labels)
    unlimited = np.full(len(REASONS), np.inf, np.float32)
    gate = Gate(weights, bias, means, whitening, unlimited)

    files = dataset.kept(processed, "val")["file"].tolist()
    validation = dataset.read(processed, files, size)
    found = features(validation)
    scores = gate.scores(validation, np.zeros(len(validation), np.float32), found)
    quantile = 1 - _FALSE / (len(LEARNT) + 1)
    thresholds = {
        **{reason: float(np.quantile(scores[reason], quantile)) for reason in REASONS},
        "colour": _COLOUR,
    }
    gate = Gate(
        weights,
        bias,
        means,
        whitening,
        np.array([thresholds[reason] for reason in REASONS], np.float32),
    )
    return gate, _record(gate, len(images), validation, features)


def _learn(images: Images) -> tuple[Floats, Floats]:
    described, kinds = [describe(images)], [np.zeros(len(images), int)]
    for kind, reason in EXPECTED.items():
        altered = alteration.apply(kind, images[:: max(1, len(images) // _ALTERED)], _SEED)
        described.append(describe(altered))
        kinds.append(np.full(len(altered), 1 + LEARNT.index(reason)))
    model = LogisticRegression(C=0.1, max_iter=200)
    model.fit(np.concatenate(described), np.concatenate(kinds))
    return model.coef_.astype(np.float32), model.intercept_.astype(np.float32)


def _centres(features: Floats, labels: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    covariance, _ = ledoit_wolf(features - means[np.unique(labels, return_inverse=True)[1]])
    values, vectors = np.linalg.eigh(covariance)
    floor = max(float(values.max()) * 1e-6, 1e-12)
    whitening = vectors / np.sqrt(np.maximum(values, floor))
    return means.astype(np.float32), whitening.astype(np.float32)


def _record(gate: Gate, training: int, images: Images, features: Features) -> GateRecord:
    grey = np.zeros(len(images), np.float32)

    def reject(some: Images) -> list[tuple[Reason, ...]]:
        return [verdict.reasons for verdict in gate.judge(some, grey[: len(some)], features(some))]

    verdicts = reject(images)
    found: dict[Reason, list[bool]] = {}
    for kind, reason in EXPECTED.items():
        altered = alteration.apply(kind, images, _SEED + 1)
        found.setdefault(reason, []).extend(reason in reasons for reasons in reject(altered))
    checks = {
        reason: GateCheck(
            threshold=float(threshold),
            validation=_count([reason in reasons for reasons in verdicts]),
            found=_count(found[reason]) if reason in found else None,
        )
        for reason, threshold in zip(REASONS, gate.thresholds, strict=True)
    }
    return GateRecord(
        training=training, validation=_count([bool(v) for v in verdicts]), checks=checks
    )


def _count(rejected: list[bool]) -> Rejections:
    return Rejections.of(sum(rejected), len(rejected))
