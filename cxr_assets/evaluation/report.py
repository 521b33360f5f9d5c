"""The report on a pair of models: made, or reused where nothing that shapes it has changed."""

from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from cxr_assets import written
from cxr_assets.evaluation import past
from cxr_assets.evaluation.reports import REPORT
from cxr_assets.groups import Rule
from cxr_assets.layout import PAGE_FILE, Layout
from cxr_assets.progress import Progress, held
from cxr_assets.provenance import code_version, fingerprint
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_serving.model import hashes, store
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import RECORD_FILE, BundleError, BundleRecord
from cxr_serving.model.report import METRICS_FILE, TrendPoint


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
    replaces an earlier report on the same main bundle; then its metrics are published for the
    service, and ``<reports>/metrics.json``, ``report.html`` and ``latest.json`` follow. What a kill
    in between has left out, the next run completes.

    An earlier report that is intact is reused if models, images, rule, earlier trainings and code
    are those that it was made from.

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
    ours = BundleRecord.read(main)
    trend = past.trend(layout, ours.asset, progress)
    identity = _identity(layout, ours, (main, baseline), rule, trend)
    final = layout.reports / ours.version
    assessment = None
    if identity is not None and written.made_from(final, REPORT, identity):
        progress(f"reused the report on {ours.version}: nothing that shapes it has changed")
    else:
        # It imports what computes, which takes seconds.
        from cxr_assets.evaluation.assessment import assess, write

        assessment = assess(layout, main, baseline, rule, trend, progress)
    # Otherwise two runs would take the unfinished reports of each other for leftovers.
    with held(layout.reports_lock, "reports are being written", progress):
        if assessment is not None:
            write(assessment, final, REPORT, layout.set_aside, identity)
        metrics = (final / METRICS_FILE).read_bytes()
        layout.metrics.mkdir(exist_ok=True)
        write_file(store.metrics_file(layout.root, ours.version), metrics)
        write_file(layout.reports / METRICS_FILE, metrics)
        write_file(layout.reports / PAGE_FILE, (final / PAGE_FILE).read_bytes())
        store.write_pointer(layout.reports, ours.version)
    return final


def _identity(
    layout: Layout,
    ours: BundleRecord,
    pair: Sequence[Path],
    rule: Rule | None,
    trend: Sequence[TrendPoint],
) -> str | None:
    """Digest of all that shapes a report; None if a model is broken, so that the report says so."""
    try:
        champion = past.champion(layout, ours.asset, ours.version)
        models = [*pair, *([champion] if champion else [])]
        for directory in models:
            store.verify(directory)
    except BundleError:
        return None
    return fingerprint(
        {
            "models": [hashes.of_file(directory / RECORD_FILE) for directory in models],
            "dataset": DatasetRecord.read(layout.processed).model_dump(mode="json"),
            "rule": rule and rule.model_dump(mode="json"),
            # What is known of the model itself follows from the rest.
            "trend": [
                point.model_dump(mode="json") for point in trend if point.version != ours.version
            ],
            "code": code_version("cxr_assets.evaluation.report"),
            "templates": [
                sha256(file.read_bytes()).hexdigest()
                for file in sorted(files("cxr_assets.evaluation").iterdir(), key=lambda f: f.name)
                if file.name.endswith((".j2", ".css"))
            ],
        }
    )
