"""Asset ``metrics_report``: both models, measured on the test split."""

from contextlib import suppress

import dagster as dg

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.assets.convnext_model import convnext_model
from cxr_assets.defs.assets.dinov2_probe import dinov2_probe
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.evaluation import reports
from cxr_assets.evaluation.wording import rejection, suspicions
from cxr_assets.release import promotion
from cxr_assets.tracking import Run
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.report import Report


@dg.asset(
    deps=[convnext_model, dinov2_probe],
    group_name=GROUP,
    kinds={"torchmetrics", "matplotlib"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    description=(
        "Metrics with confidence intervals, and plots, of both models on the test split. "
        "Predictions come from the same code as those of the service."
    ),
)
def metrics_report(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    data_root: DataRoot,
    mlflow: dg.ResourceParam[Run],
) -> dg.MaterializeResult[None]:
    from cxr_assets.defs.assets import pictures
    from cxr_assets.evaluation.report import write_report
    from cxr_assets.radiographs import changes
    from cxr_assets.release import sections

    resolved = experiment.resolve()
    with data_root.exchanged(context) as layout:
        main = store.latest(layout.models("convnext_model"))
        baseline = store.latest(layout.models("dinov2_probe"))
        rule = resolved.release.rule
        with suppress(BundleError):  # the report says what is broken
            promotion.complete(layout, main.name)
        repeated = store.read_pointer(layout.reports) == main.name
        directory = write_report(layout, main, baseline, context.log.info, rule)
        reports.prune(layout, resolved.keep_versions, context.log.info)
    report = Report.read(directory)
    headline = {
        f"{prefix}{name}": getattr(model, name)
        for prefix, model in zip(("", "baseline_"), report.models, strict=True)
        for name in ("accuracy", "macro_f1", "auroc_macro_ovr")
    }
    external = sections.external(report)
    mlflow.log_metrics({f"test_{name}": value for name, value in headline.items()})
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(str(directory)),
            "synthetic": report.synthetic,
            **({"label_audit": suspicions(report.label_audit)} if report.label_audit else {}),
            **({"rejected_by_the_gate": rejection(report.gate.total)} if report.gate else {}),
            "convnext_model": main.name,
            "dinov2_probe": baseline.name,
            **headline,
            "unknown_patients": report.unknown_patients,
            "changes_of_the_data": (
                "No image has changed since the last report. " if repeated else ""
            )
            + changes.sentence(report.changes),
            **({"external": dg.MetadataValue.md(external)} if external else {}),
            **promotion.shown(report.clauses),
            **{
                path.stem: pictures.markdown(path.read_bytes())
                for path in sorted(directory.glob("*.png"))
            },
        },
        data_version=dg.DataVersion(f"{main.name}+{baseline.name}"),
    )
