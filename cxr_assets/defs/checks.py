"""Asset checks: clean data, whole bundles, and each clause of the rule for release."""

import math

import dagster as dg

from cxr_assets.defs.resources import DataRoot
from cxr_assets.radiographs.naming import SPLITS
from cxr_assets.release import promotion
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.report import Report

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
    from cxr_assets.radiographs import leakage

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
    from cxr_assets.radiographs.dataset import DatasetRecord

    unknown = DatasetRecord.read(data_root.layout.processed).unknown_patients
    return dg.AssetCheckResult(
        passed=not unknown,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"images_of_unknown_patients": unknown},
    )


@dg.asset_check(
    asset="processed_dataset", blocking=True, description="Every split has images of every class."
)
def no_class_empty(data_root: DataRoot) -> dg.AssetCheckResult:
    from cxr_assets.radiographs.dataset import DatasetRecord

    counts = DatasetRecord.read(data_root.layout.processed).counts
    empty = [
        f"{split}/{label}"
        for split in SPLITS
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
    from cxr_assets.radiographs import dataset

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


def _clause_check(name: str, description: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name=name,
        asset="metrics_report",
        description=f"{description} Otherwise the release is held.",
    )
    def clause(data_root: DataRoot) -> dg.AssetCheckResult:
        report = Report.read(data_root.layout.reports)
        found = next(clause for clause in report.clauses if clause.name == name)
        low, high = found.interval or (None, None)
        return dg.AssetCheckResult(
            passed=found.passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=found.text,
            metadata={
                "figure": found.figure,
                "lower_end_of_95_percent_interval": low,
                "upper_end_of_95_percent_interval": high,
                "limit": found.limit,
                "consequence": "none" if found.passed else promotion.consequence(report.version),
            },
        )

    return clause


convnext_bundle_verifies = _bundle_check("convnext_model")
probe_bundle_verifies = _bundle_check("dinov2_probe")

clause_checks = [
    _clause_check(name, description)
    for name, description in {
        "beats_probe": (
            "The main model beats the probe in macro F1 by `margin`, at the lower end of the 95 % "
            "interval."
        ),
        "not_worse_than_released": (
            "The main model loses at most `non_inferiority` of macro F1 to the released one, at "
            "the lower end of the 95 % interval, on images that neither has learnt from."
        ),
        "no_class_worse": "No class loses more than `class_loss` of recall to the released model.",
        "no_site_worse": "No site loses more than `site_loss` of accuracy to the released model.",
        "calibrated": "The expected calibration error as served is at most `calibration_error`.",
    }.items()
]

checks = [
    patients_disjoint,
    patients_known,
    no_class_empty,
    no_duplicates_across_splits,
    convnext_bundle_verifies,
    probe_bundle_verifies,
    *clause_checks,
]
