"""Writing the report: models on the test split or on a folder, by the predictor that serves."""

import functools
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from cxr_assets import written
from cxr_assets.evaluation import illustration, page, past, regression
from cxr_assets.evaluation import images as evaluated
from cxr_assets.evaluation.audit import AUDIT_FILE, COLUMNS, answered, audit
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.regression import NotComparable
from cxr_assets.evaluation.rejection import altered
from cxr_assets.evaluation.reports import EVALUATION, REPORT
from cxr_assets.evaluation.robustness import robustness
from cxr_assets.evaluation.rule import judge
from cxr_assets.evaluation.scoring import Evaluated, Evaluation, compile_report, evaluate_models
from cxr_assets.groups import Rule
from cxr_assets.layout import PAGE_FILE, Layout
from cxr_assets.progress import Progress, held
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_serving.model import store
from cxr_serving.model.atomic import write_file
from cxr_serving.model.dataset import Dataset
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import (
    METRICS_FILE,
    Report,
    ReportError,
)

PREDICTIONS_FILE = "predictions.csv"


def write_report(
    layout: Layout,
    main: Path,
    baseline: Path,
    progress: Progress = lambda line: None,
    rule: Rule | None = None,
) -> Path:
    """Evaluate two bundles on the test split of the processed dataset and write the report.

    ``<reports>/<version>/``, the version being the main bundle's, holds ``metrics.json``,
    ``report.html``, ``predictions.csv``, ``label_audit.csv`` where labels could be audited,
    ``external-<source>.csv`` with the predictions on each source that is only for evaluation, and
    the plots with the numbers of each. It is written aside and moved into place whole, where it
    replaces an earlier report on the same main bundle; then ``<reports>/metrics.json``,
    ``report.html`` and ``latest.json`` follow.

    Args:
        layout: where the dataset lies and the report goes.
        main: directory of the bundle that is to be released.
        baseline: directory of the bundle it is compared with.
        progress: called with a line for each model.
        rule: what the main model must fulfil to be released; no clause is judged without one.

    Returns:
        The report's directory.

    Raises:
        DatasetError: there is no processed dataset.
        BundleError: a bundle is broken; a broken release or an older bundle is only left out.
        DecisionError: a decision on record is broken.
        ReportError: the bundles and the dataset do not belong together, or an image is unreadable.
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
    _announce(evaluation, progress)
    external = {}
    for source, part in evaluated.external(layout.processed).items():
        external[source] = evaluate_models(predictors, part)
        _announce(external[source], progress)
    answers = answered([evaluation, *external.values()])
    audited = audit(layout, predictors[0], baseline, answers, progress)
    trend = [
        # As when it was new: making a report again changes nothing in it.
        point.model_copy(update={"test_macro_f1": model.metrics.macro_f1, "released": False})
        if point.version == ours.version
        else point
        for point in past.trend(layout, ours.asset, progress)
    ]
    report = compile_report(
        evaluation,
        probe,
        altered=altered(predictors[0], evaluation.sampled),
        regression=regression.compare(images, model, others[0], champion.unseen)
        if champion
        else None,
        not_compared=not_compared,
        trend=trend,
        dataset=Dataset(**data.model_dump()),
        external=external,
        robustness=robustness(predictors[0], evaluated.validation_split(layout.processed)),
        label_audit=audited.summary,
    )
    if rule is not None:
        report = report.model_copy(update={"clauses": judge(report, rule)})
    final = layout.reports / ours.version
    # Otherwise two runs would take the unfinished reports of each other for leftovers.
    with held(layout.reports_lock, "reports are being written", progress):
        content = _write(
            final, REPORT, layout.set_aside, report, evaluation, probe, external, audited.table
        )
        write_file(layout.reports / METRICS_FILE, content)
        write_file(layout.reports / PAGE_FILE, (final / PAGE_FILE).read_bytes())
        store.write_pointer(layout.reports, ours.version)
    return final


def report_on_images(
    main: Path,
    place: Path,
    out: Path,
    baseline: Path | None,
    progress: Progress,
    labels: Mapping[str, str | None] = MappingProxyType({}),
) -> Path:
    """Write the same report on any bundle and any images.

    Args:
        main: directory of the bundle.
        place: a folder of images in the raw layout, or a table; classes without images are reported
            as absent.
        out: where the report goes; an earlier one by this function, unchanged, is replaced.
        baseline: directory of a bundle to compare with, if any.
        progress: called with a line for each model, and while the images are read.
        labels: class by label of the images, None for one that is left out; a class needs no entry.

    Returns:
        ``out``.

    Raises:
        RawDataError: there is no image.
        BundleError: a bundle is broken.
        ReportError: an image is unreadable or of a class that a model does not know, or the models
            know other classes than each other, or ``out`` holds anything else, or lies inside a
            directory that must stay as it is.
    """
    out = out.resolve()
    _require_free(out, place.resolve())
    predictors = [Predictor(main)]
    images = evaluated.labelled(place, predictors[0].record.classes, labels, progress)
    if baseline is not None:
        predictors.append(_load(baseline, predictors[0].record.classes))
    evaluation = evaluate_models(predictors, images)
    _announce(evaluation, progress)
    compared = evaluation.models[1] if baseline else None
    report = compile_report(
        evaluation, compared, altered=altered(predictors[0], evaluation.sampled)
    )
    _write(out, EVALUATION, out.parent, report, evaluation, compared, {})
    return out


def _require_free(out: Path, place: Path) -> None:
    reason = written.foreign(out, EVALUATION) if out.exists() else None
    for above in out.parents:
        # What it holds is on record: another file would make it count as altered.
        sealed = (above / written.RECORD_FILE).exists() or store.foreign(above) is None
        if above == place or sealed:
            reason = f"{out} lies in {above}, which must stay as it is"
    if reason is not None:
        raise ReportError(f"{reason}: name a new or an empty directory with --out")


def _load(directory: Path, classes: tuple[str, ...]) -> Predictor:
    predictor = Predictor(directory)
    if predictor.record.classes != classes:
        raise ReportError(
            f"{directory} has the classes {', '.join(predictor.record.classes)}, not "
            f"{', '.join(classes)}: train it again"
        )
    return predictor


def _trained_on(directory: Path, images: Images, classes: tuple[str, ...]) -> Predictor:
    predictor = _load(directory, classes)
    record = predictor.record
    if record.data_version != images.data_version:
        raise ReportError(
            f"{directory} was trained on data version {record.data_version[:8]}, but the test "
            f"images in {images.root} are of version {(images.data_version or '')[:8]}, and it may "
            f"have been trained on some of them: materialise {record.asset} again"
        )
    return predictor


def _announce(evaluation: Evaluation, progress: Progress) -> None:
    """Report the main scores of main model and baseline."""
    for model in evaluation.models[:2]:
        progress(
            f"{model.record.asset} {model.record.version}: macro F1 {model.metrics.macro_f1:.3f} "
            f"and accuracy {model.metrics.accuracy:.3f} on {model.metrics.images} images "
            f"({evaluation.images.described})"
        )


def _write(
    final: Path,
    kind: str,
    aside: Path,
    report: Report,
    evaluation: Evaluation,
    baseline: Evaluated | None,
    external: Mapping[str, Evaluation],
    suspects: pd.DataFrame | None = None,
) -> bytes:
    """Write a report aside and move it to ``final``; returns the contents of metrics.json."""
    final.parent.mkdir(parents=True, exist_ok=True)
    foreign = functools.partial(written.foreign, kind=kind)
    written.remove_leftovers(final, foreign)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    images, main = evaluation.images, evaluation.models[0]
    try:
        written.begin(partial, kind)
        with suppress(ReportError):  # there is none, or a broken one, which this one replaces
            before = Report.read(final)
            # A report that says the same keeps its date, so that nobody takes it for a new one.
            if before == report.model_copy(update={"created_at": before.created_at}):
                report = before
        content = report.content()
        (partial / METRICS_FILE).write_bytes(content)
        _write_predictions(partial / PREDICTIONS_FILE, evaluation, baseline)
        for source, part in external.items():
            _write_predictions(partial / f"external-{source}.csv", part, part.models[1])
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
        written.seal(partial, kind)
        written.replace(partial, final, foreign, aside)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return content


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
