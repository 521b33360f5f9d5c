"""Asset checks: clean data, whole bundles, a main model that is worth releasing."""

import math

import dagster as dg

from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.evaluation.comparison import clearly_beats
from cxr_assets.radiographs import dataset, leakage, naming
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.report import Difference, Report

_SHOWN = 20


@dg.asset_check(
    asset="processed_dataset",
    blocking=True,
    description=(
        "No patient has images in two splits. Compares the patients in the manifest, the file "
        "names (ignoring marks such as `(1)` or `Copy of`), and the images themselves."
    ),
)
def patients_disjoint(data_root: DataRoot) -> dg.AssetCheckResult:
    pairs = leakage.pairs_across_splits(data_root.layout.processed)
    return dg.AssetCheckResult(
        passed=not pairs,
        description=leakage.REMEDY if pairs else None,
        metadata={
            "number_of_pairs": len(pairs),
            "pairs": [list(pair) for pair in pairs[:_SHOWN]],
        },
    )


@dg.asset_check(
    asset="processed_dataset",
    description="The patient of every image is known. Otherwise leakage cannot be excluded.",
)
def patients_known(data_root: DataRoot) -> dg.AssetCheckResult:
    unknown = dataset.DatasetRecord.read(data_root.layout.processed).unknown_patients
    return dg.AssetCheckResult(
        passed=not unknown,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"images_of_unknown_patients": unknown},
    )


@dg.asset_check(
    asset="processed_dataset", blocking=True, description="Every split has images of every class."
)
def no_class_empty(data_root: DataRoot) -> dg.AssetCheckResult:
    counts = dataset.DatasetRecord.read(data_root.layout.processed).counts
    empty = [
        f"{split}/{label}"
        for split in naming.SPLITS
        for label in counts[split]
        if not counts[split][label]
    ]
    return dg.AssetCheckResult(passed=not empty, metadata={"empty": empty, "counts": counts})


@dg.asset_check(
    asset="processed_dataset",
    blocking=True,
    description="No file is in two splits, byte for byte.",
)
def no_duplicates_across_splits(data_root: DataRoot) -> dg.AssetCheckResult:
    images = dataset.manifest(data_root.layout.processed).query("kept")
    splits = images.groupby("sha256")["split"].nunique()
    shared = images[images["sha256"].isin(splits.index[splits > 1])]["path"]
    return dg.AssetCheckResult(passed=shared.empty, metadata={"in_two_splits": list(shared[:20])})


def _bundle_check(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name="bundle_verifies",
        asset=asset,
        blocking=True,
        description="Every file of the newest bundle matches its hash; its metrics are finite.",
    )
    def bundle_verifies(data_root: DataRoot) -> dg.AssetCheckResult:
        try:
            record = store.verify(store.latest(data_root.layout.models(asset)))
        except BundleError as error:
            return dg.AssetCheckResult(passed=False, metadata={"error": str(error)})
        return dg.AssetCheckResult(
            passed=all(math.isfinite(value) for value in record.validation.values()),
            metadata={"version": record.version, "files": len(record.files), **record.validation},
        )

    return bundle_verifies


@dg.asset_check(
    asset="metrics_report",
    blocking=True,
    description=(
        "The main model beats the baseline in macro F1 by more than `margin`: the lower end of the "
        "95 % interval of the difference counts. Otherwise there is no release."
    ),
)
def beats_probe(experiment: Experiment, data_root: DataRoot) -> dg.AssetCheckResult:
    margin = experiment.resolve().margin
    report = Report.read(data_root.layout.reports)
    if report.baseline is None or report.comparison is None:
        return dg.AssetCheckResult(passed=False, description="the report has no baseline")
    return dg.AssetCheckResult(
        passed=clearly_beats(report, margin),
        metadata={
            "macro_f1": report.macro_f1,
            "baseline_macro_f1": report.baseline.macro_f1,
            **_shown(report.comparison.macro_f1),
            "margin": margin,
        },
    )


@dg.asset_check(
    asset="metrics_report",
    description="On the same images, the model is not significantly worse than the released one.",
)
def not_worse_than_released(data_root: DataRoot) -> dg.AssetCheckResult:
    report = Report.read(data_root.layout.reports)
    if report.regression is None:
        reason = report.not_compared or "no other release"
        return dg.AssetCheckResult(passed=True, metadata={"released": reason})
    difference = report.regression.macro_f1
    return dg.AssetCheckResult(
        passed=difference.interval is None or difference.interval[1] >= 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"released": report.regression.released, **_shown(difference)},
    )


def _shown(difference: Difference) -> dict[str, float | None]:
    low, high = difference.interval or (None, None)
    return {
        "difference": difference.estimate,
        "lower_end_of_95_percent_interval": low,
        "upper_end_of_95_percent_interval": high,
    }


convnext_bundle_verifies = _bundle_check("convnext_model")
probe_bundle_verifies = _bundle_check("dinov2_probe")

checks = [
    patients_disjoint,
    patients_known,
    no_class_empty,
    no_duplicates_across_splits,
    convnext_bundle_verifies,
    probe_bundle_verifies,
    beats_probe,
    not_worse_than_released,
]
