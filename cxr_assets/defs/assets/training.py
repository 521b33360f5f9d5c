"""What the two model assets share: a graph of the ops ``fit`` and ``export``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from cxr_assets import tracking
from cxr_assets.defs.assets import pictures
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.evaluation import plots
from cxr_assets.learning.export import ExportError, prune
from cxr_assets.learning.export import export as export_bundle
from cxr_assets.learning.fit import DivergedError
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.tracking import Run
from cxr_serving.model.bundle import HISTORY_FILE, BundleRecord

RETRY_SECONDS = 10


class FitConfig(dg.Config):
    """Of the op ``fit``."""

    force: bool = Field(
        False, description="Train again even if a bundle of the same fingerprint exists."
    )


@contextmanager
def retried(*permanent: type[Exception]) -> Iterator[None]:
    """Have Dagster run the op once more when something else than ``permanent`` is raised.

    A ``dg.RetryPolicy`` of the op would also start anew what was terminated.
    """
    try:
        yield
    except permanent:
        raise
    except Exception as error:
        raise dg.RetryRequested(max_retries=1, seconds_to_wait=RETRY_SECONDS) from error


def model_asset(asset: str, **described: Any) -> dg.AssetsDefinition:
    """Graph-backed asset of one model: a failed export never repeats a finished fit.

    The ops hand each other nothing: ``export`` finds the finished fit by its fingerprint.
    """

    @dg.op(
        name=f"{asset}_fit", ins={"processed_dataset": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing)
    )
    def fit(
        context: dg.OpExecutionContext,
        config: FitConfig,
        experiment: Experiment,
        data_root: DataRoot,
        mlflow: dg.ResourceParam[Run],
    ) -> None:
        plan = make_plan(asset, experiment.resolve(), data_root.layout)
        with retried(DivergedError):
            tracking.fit(plan, context.log.info, config.force)

    @dg.op(name=f"{asset}_export", ins={"fitted": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
    def export(
        context: dg.OpExecutionContext,
        experiment: Experiment,
        data_root: DataRoot,
        mlflow: dg.ResourceParam[Run],
    ) -> dg.Output[None]:
        plan = make_plan(asset, experiment.resolve(), data_root.layout)
        with retried(ExportError):
            directory, published = export_bundle(plan, context.run_id, progress=context.log.info)
            pruned = prune(plan)
        record = BundleRecord.read(directory)
        history = pd.read_csv(directory / HISTORY_FILE)
        return dg.Output(
            None,
            metadata={
                "version": record.version,
                "bundle": dg.MetadataValue.path(str(directory)),
                "outcome": "published" if published else f"reused {record.version}",
                "fingerprint": record.fingerprint,
                "pretrained": record.pretrained or "none: random weights",
                "synthetic": record.synthetic,
                "epochs": len(history),
                "training_seconds": round(float(history["seconds"].sum()), 1),
                **{f"validation_{name}": value for name, value in record.validation.items()},
                "curves": pictures.markdown(
                    plots.learning_curves(history, asset, record.synthetic)
                ),
                "mlflow_run_id": record.mlflow_run_id or "none",
                "mlflow_parent_run_id": mlflow.id or "none",
                "pruned": ", ".join(pruned) or "none",
            },
            data_version=dg.DataVersion(record.fingerprint),
        )

    @dg.graph_asset(
        name=asset,
        ins={"processed_dataset": dg.AssetIn(dagster_type=dg.Nothing)},
        group_name="models",
        owners=["team:maintainers"],
        **described,
    )
    def model(processed_dataset: None) -> Any:
        return export(fit(processed_dataset))

    return model
