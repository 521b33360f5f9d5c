"""From what the models answer to the typed report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxr_assets.evaluation import bootstrap, comparison, inference, operating, reliability
from cxr_assets.evaluation.errors import ConfidentErrors, Error
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.machine import environment
from cxr_assets.evaluation.metrics import evaluate
from cxr_assets.evaluation.rejection import Sample, false_rejection, selective
from cxr_assets.evaluation.shortcuts import border, shortcuts
from cxr_assets.evaluation.subgroups import subgroups
from cxr_serving.model import CONFIDENCE, DISCLAIMER
from cxr_serving.model.bundle import HISTORY_FILE, BundleRecord
from cxr_serving.model.comparison import Comparison, Regression
from cxr_serving.model.dataset import Dataset
from cxr_serving.model.gate import Verdict
from cxr_serving.model.metrics import (
    Calibration,
    ClassIntervals,
    Coverage,
    Intervals,
    ModelReport,
    Performance,
)
from cxr_serving.model.predictor import Answers, Predictor
from cxr_serving.model.rejection import Altered, GateReport
from cxr_serving.model.report import External, LabelAudit, NoAudit, Report, TrendPoint
from cxr_serving.model.robustness import Robustness


@dataclass(frozen=True)
class Evaluated:
    """A model, its answers to the images and their metrics.

    Attributes:
        record: of its bundle.
        history: one row per epoch of its training; None where it was not recorded.
        probabilities: float32 [N, C], calibrated.
        uncalibrated: float64 [N, C], before temperature scaling.
        draws: what :func:`cxr_assets.evaluation.bootstrap.scores` returns for it.
        metrics: its part of the report.
    """

    record: BundleRecord
    history: pd.DataFrame | None
    probabilities: npt.NDArray[np.float32]
    uncalibrated: npt.NDArray[np.float64]
    draws: pd.DataFrame
    metrics: ModelReport


@dataclass(frozen=True)
class Evaluation:
    """Models on the same N images.

    Attributes:
        images: the images.
        models: in the order they were given in; the first is the main model.
        errors: the most confident ones of the main model.
        borders: float32 [N, cells] of the images.
        verdicts: of the gate of the main model on the N images, where it has one.
        sampled: some of the images, uint8 [n, size, size].
        drawn: the resampled images of each draw.
    """

    images: Images
    models: list[Evaluated]
    errors: list[Error]
    borders: npt.NDArray[np.float32]
    verdicts: list[Verdict] | None
    sampled: npt.NDArray[np.uint8]
    drawn: torch.Tensor


def evaluate_models(predictors: Sequence[Predictor], images: Images) -> Evaluation:
    """Run all models in one pass over the images, and compute their metrics.

    Args:
        predictors: the main model first; all of the same classes.
        images: N images.

    Raises:
        ReportError: an image cannot be read.
    """
    targets = images.targets(predictors[0].record.classes)
    drawn = bootstrap.draws(images.table["patient"])
    errors, sample, borders = ConfidentErrors(targets), Sample(len(targets)), []
    verdicts: list[Verdict] = []

    def observe(pixels: inference.Pixels, answers: Answers) -> None:
        errors.add(pixels, answers.probabilities, answers.cam)
        sample.add(pixels)
        borders.append(border(pixels))
        verdicts.extend(answers.verdicts or ())

    answers = inference.predict(predictors, images.paths, observe, images.table["colour"].tolist())
    models = [
        _evaluated(predictor, probabilities, targets, drawn)
        for predictor, probabilities in zip(predictors, answers, strict=True)
    ]
    return Evaluation(
        images=images,
        models=models,
        errors=errors.found(),
        borders=np.concatenate(borders),
        verdicts=verdicts if predictors[0].gate else None,
        sampled=sample.pixels(),
        drawn=drawn,
    )


def _evaluated(
    predictor: Predictor,
    probabilities: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    drawn: torch.Tensor,
) -> Evaluated:
    record = predictor.record
    classes = record.classes
    path = predictor.directory / HISTORY_FILE
    history = pd.read_csv(path) if path.exists() else None
    uncalibrated = reliability.uncalibrated(probabilities, record.temperature)
    draws = bootstrap.scores(probabilities, targets, classes, drawn)
    selective = operating.selective(probabilities, targets).to_json(orient="records")
    metrics = ModelReport(
        **dict(evaluate(probabilities, targets, classes)),
        model=record.provenance,
        training_seconds=_sum(history, "seconds"),
        training_joules=_sum(history, "joules"),
        intervals=_intervals(draws, classes),
        calibration=Calibration(
            temperature=record.temperature,
            before=reliability.calibration(uncalibrated, targets),
            after=reliability.calibration(probabilities, targets),
        ),
        abnormal=operating.abnormal(probabilities, targets, classes),
        selective=[Coverage(**row) for row in json.loads(selective)],
    )
    return Evaluated(record, history, probabilities, uncalibrated, draws, metrics)


def _intervals(draws: pd.DataFrame, classes: tuple[str, ...]) -> Intervals:
    found = {str(name): bootstrap.interval(draws[name]) for name in draws.columns}
    return Intervals(
        **{name: found[name] for name in Intervals.model_fields if name != "classes"},
        classes={
            label: ClassIntervals(
                **{name: found[f"{label}/{name}"] for name in ClassIntervals.model_fields}
            )
            for label in classes
        },
    )


def _sum(history: pd.DataFrame | None, column: str) -> float | None:
    """Over the epochs; None where one lacks it."""
    if history is None or column not in history or history[column].isna().any():
        return None
    return round(float(history[column].sum()), 1)


def compile_report(
    evaluation: Evaluation,
    baseline: Evaluated | None,
    *,
    altered: Mapping[str, Altered] | None = None,
    regression: Regression | None = None,
    not_compared: str | None = None,
    external: Mapping[str, Evaluation] | None = None,
    robustness: Robustness | None = None,
    trend: Sequence[TrendPoint] = (),
    dataset: Dataset | None = None,
    label_audit: LabelAudit | NoAudit | None = None,
) -> Report:
    """The report on the main model.

    Args:
        evaluation: of the main model, and of others that it is compared with.
        baseline: the one of them that is the baseline, if any.
        altered: rejection of altered images by the gate of the main model, by kind.
        external: of main model and baseline on each source that is only for evaluation.
        regression, not_compared, robustness, trend, dataset, label_audit: attributes of
            :class:`Report`.
    """
    images, main = evaluation.images, evaluation.models[0]
    classes = main.record.classes
    targets = images.targets(classes)
    compared = None
    if baseline is not None:
        compared = Comparison(
            **dict(comparison.compare(main.metrics, baseline.metrics, main.draws, baseline.draws)),
            mcnemar=comparison.mcnemar(main.probabilities, baseline.probabilities, targets),
        )
    return Report(
        **dict(main.metrics),
        version=main.record.version,
        created_at=datetime.now(UTC).replace(microsecond=0),
        disclaimer=DISCLAIMER,
        synthetic=images.synthetic or main.record.synthetic,
        images_from=images.described,
        images_sha256=_identity(images),
        patients=images.patients,
        unknown_patients=images.unknown_patients,
        skipped=images.skipped,
        data_version=images.data_version,
        subgroups=subgroups(images, main.probabilities, classes, evaluation.drawn),
        gate=_gate(evaluation, altered or {}),
        robustness=robustness,
        shortcuts=shortcuts(images, evaluation.borders, classes, main.metrics.macro_f1),
        label_audit=label_audit,
        environment=environment(),
        baseline=baseline and baseline.metrics,
        margin=compared and compared.macro_f1.estimate,
        comparison=compared,
        regression=regression,
        not_compared=not_compared,
        clauses=[],
        trend=list(trend),
        dataset=dataset,
        external={source: _external(part) for source, part in (external or {}).items()},
    )


def _gate(evaluation: Evaluation, altered: Mapping[str, Altered]) -> GateReport | None:
    images, main, verdicts = evaluation.images, evaluation.models[0], evaluation.verdicts
    if verdicts is None:
        return None
    classes = main.record.classes
    return GateReport(
        **dict(false_rejection(images, verdicts)),
        altered=dict(altered),
        confidence=CONFIDENCE,
        selective=selective(
            main.probabilities, images.targets(classes), classes, evaluation.drawn, verdicts
        ),
    )


def _external(evaluation: Evaluation) -> External:
    images, (main, *others) = evaluation.images, evaluation.models
    verdicts = evaluation.verdicts
    return External(
        **_performance(main),
        images_sha256=_identity(images),
        patients=images.patients,
        unknown_patients=images.unknown_patients,
        subgroups=subgroups(images, main.probabilities, main.metrics.classes, evaluation.drawn),
        gate=false_rejection(images, verdicts) if verdicts is not None else None,
        baseline=Performance(**_performance(others[0])) if others else None,
    )


def _performance(model: Evaluated) -> dict[str, Any]:
    return {name: getattr(model.metrics, name) for name in Performance.model_fields}


def _identity(images: Images) -> str:
    digest = sha256()
    for image, label in sorted(zip(images.table["sha256"], images.table["class"], strict=True)):
        digest.update(f"{image} {label}\n".encode())
    return digest.hexdigest()
