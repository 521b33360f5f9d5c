"""What a report says of models on the test split, and the files that it consists of."""

import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxr_assets import written
from cxr_assets.evaluation import illustration, page, regression
from cxr_assets.evaluation import images as evaluated
from cxr_assets.evaluation.audit import AUDIT_FILE, COLUMNS, answered, audit
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.regression import NotComparable
from cxr_assets.evaluation.rejection import altered
from cxr_assets.evaluation.reports import PREDICTIONS_FILE
from cxr_assets.evaluation.robustness import robustness
from cxr_assets.evaluation.rule import judge
from cxr_assets.evaluation.scoring import Evaluated, Evaluation, compile_report, evaluate_models
from cxr_assets.groups import Rule
from cxr_assets.layout import PAGE_FILE, Layout
from cxr_assets.progress import Progress
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_serving.model.dataset import Dataset
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import METRICS_FILE, Report, ReportError, TrendPoint


@dataclass(frozen=True)
class Assessment:
    """A report, and what its files show.

    Attributes:
        report: contents of ``metrics.json``.
        evaluation: of the main model, and of those it is compared with.
        baseline: one of these, if any.
        external: evaluations on sources that are only for evaluation, by name.
        suspects: table of the label audit, where labels could be audited.
    """

    report: Report
    evaluation: Evaluation
    baseline: Evaluated | None
    external: Mapping[str, Evaluation] = field(default_factory=dict)
    suspects: pd.DataFrame | None = None


def assess(
    layout: Layout,
    main: Path,
    baseline: Path,
    rule: Rule | None,
    trend: Sequence[TrendPoint],
    progress: Progress,
) -> Assessment:
    """Evaluate two bundles on the test split, and the released model beside them.

    Arguments and errors are those of :func:`cxr_assets.evaluation.report.write_report`; ``trend``
    holds the last trainings of the main model, itself among them.
    """
    images = evaluated.test_split(layout.processed)
    data = DatasetRecord.read(layout.processed)
    predictors = [_trained_on(directory, images, data.classes) for directory in (main, baseline)]
    ours = predictors[0].record
    champion, not_compared = None, None
    try:
        champion = regression.champion(layout, images, ours)
    except NotComparable as error:
        not_compared = str(error)
        progress(f"not compared with the released model: {error}; {error.__cause__ or ''}")
    models = [*predictors, *([champion.predictor] if champion else [])]
    evaluation = evaluate_models(models, images)
    model, probe, *others = evaluation.models
    announce(evaluation, progress)
    external = {}
    for source, part in evaluated.external(layout.processed).items():
        external[source] = evaluate_models(predictors, part)
        announce(external[source], progress)
    answers = answered([evaluation, *external.values()])
    audited = audit(layout, predictors[0], baseline, answers, progress)
    report = compile_report(
        evaluation,
        probe,
        altered=altered(predictors[0], evaluation.sampled),
        regression=regression.compare(images, model, others[0], champion.unseen)
        if champion
        else None,
        not_compared=not_compared,
        trend=[
            # As when it was new: making a report again changes nothing in it.
            point.model_copy(update={"test_macro_f1": model.metrics.macro_f1, "released": False})
            if point.version == ours.version
            else point
            for point in trend
        ],
        dataset=Dataset(**data.model_dump()),
        external=external,
        robustness=robustness(predictors[0], evaluated.validation_split(layout.processed)),
        label_audit=audited.summary,
    )
    if rule is not None:
        report = report.model_copy(update={"clauses": judge(report, rule)})
    return Assessment(report, evaluation, probe, external, audited.table)


def load(directory: Path, classes: tuple[str, ...]) -> Predictor:
    predictor = Predictor(directory)
    if predictor.record.classes != classes:
        raise ReportError(
            f"{directory} has the classes {', '.join(predictor.record.classes)}, not "
            f"{', '.join(classes)}: train it again"
        )
    return predictor


def _trained_on(directory: Path, images: Images, classes: tuple[str, ...]) -> Predictor:
    predictor = load(directory, classes)
    record = predictor.record
    if record.data_version != images.data_version:
        raise ReportError(
            f"{directory} was trained on data version {record.data_version[:8]}, but the test "
            f"images in {images.root} are of version {(images.data_version or '')[:8]}, and it may "
            f"have been trained on some of them: materialise {record.asset} again"
        )
    return predictor


def announce(evaluation: Evaluation, progress: Progress) -> None:
    """Report the main scores of main model and baseline."""
    for model in evaluation.models[:2]:
        progress(
            f"{model.record.asset} {model.record.version}: macro F1 {model.metrics.macro_f1:.3f} "
            f"and accuracy {model.metrics.accuracy:.3f} on {model.metrics.images} images "
            f"({evaluation.images.described})"
        )


def write(
    assessment: Assessment, final: Path, kind: str, aside: Path, identity: str | None = None
) -> None:
    """Write the files of a report aside and move them to ``final``.

    Args:
        assessment: what they show.
        final: directory; what is there is deleted if it is such a report, else set aside.
        kind: of the report.
        aside: folder for what is set aside.
        identity: digest of all that shaped the report.

    Raises:
        OSError: the disk is full or read-only; what was there stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    foreign = functools.partial(written.foreign, kind=kind)
    written.remove_leftovers(final, foreign)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    report, evaluation, baseline = assessment.report, assessment.evaluation, assessment.baseline
    images, main = evaluation.images, evaluation.models[0]
    try:
        written.begin(partial, kind)
        with suppress(ReportError):  # there is none, or a broken one, which this one replaces
            before = Report.read(final)
            # A report that says the same keeps its date, so that nobody takes it for a new one.
            if before == report.model_copy(update={"created_at": before.created_at}):
                report = before
        (partial / METRICS_FILE).write_bytes(report.content())
        _write_predictions(partial / PREDICTIONS_FILE, evaluation, baseline)
        for source, part in assessment.external.items():
            _write_predictions(partial / f"external-{source}.csv", part, part.models[1])
        suspects = assessment.suspects
        if suspects is not None:
            suspects[COLUMNS].to_csv(partial / AUDIT_FILE, index=False)
        plots = illustration.draw(
            main, baseline, images.targets(main.record.classes), report.synthetic
        )
        for name, (picture, numbers) in plots.items():
            (partial / f"{name}.png").write_bytes(picture)
            numbers.to_csv(partial / f"{name}.csv", index=False)
        rendered = page.render(report, partial, evaluation.errors, images, suspects)
        (partial / PAGE_FILE).write_text(rendered, encoding="utf-8")
        written.seal(partial, kind, identity)
        written.replace(partial, final, foreign, aside)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_predictions(path: Path, evaluation: Evaluation, baseline: Evaluated | None) -> None:
    # By source and hash, an image is found again that has to be removed.
    table = evaluation.images.table[["source", "path", "patient", "sha256", "class"]]
    table = table.rename(columns={"class": "target"})
    if evaluation.verdicts is not None:
        table["rejected"] = [verdict.listed for verdict in evaluation.verdicts]
    for role, model in (("model", evaluation.models[0]), ("baseline", baseline)):
        if model is not None:
            for index, name in enumerate(model.record.classes):
                table[f"{role}_{name}"] = model.probabilities[:, index]
    table.to_csv(path, index=False)
