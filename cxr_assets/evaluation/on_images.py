"""The report on any bundle and any images."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cxr_assets import written
from cxr_assets.evaluation import images as evaluated
from cxr_assets.evaluation.assessment import Assessment, announce, load, write
from cxr_assets.evaluation.rejection import altered
from cxr_assets.evaluation.reports import EVALUATION
from cxr_assets.evaluation.scoring import compile_report, evaluate_models
from cxr_assets.progress import Progress
from cxr_serving.model import store
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import ReportError


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
        predictors.append(load(baseline, predictors[0].record.classes))
    evaluation = evaluate_models(predictors, images)
    announce(evaluation, progress)
    compared = evaluation.models[1] if baseline else None
    report = compile_report(
        evaluation, compared, altered=altered(predictors[0], evaluation.sampled)
    )
    write(Assessment(report, evaluation, compared), out, EVALUATION, out.parent)
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
