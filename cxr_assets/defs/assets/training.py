"""What the two model assets share: a graph of the ops ``fit`` and ``export``."""

from typing import Any

import dagster as dg
from pydantic import Field

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.defs.retries import reconnecting, retried
from cxr_assets.progress import StorageError
from cxr_assets.tracking import Run
from cxr_serving.model.bundle import HISTORY_FILE, BundleRecord


class FitConfig(dg.Config):
    """Launchpad settings of the op ``fit``."""

    force: bool = Field(
        False, description="Train again even if a bundle with the same fingerprint exists."
    )


def model_asset(asset: str, **metadata: Any) -> dg.AssetsDefinition:
    """Graph-backed asset of one model, so that a failed export never repeats a finished fit.

    The ops exchange no values: ``export`` finds the finished fit by its fingerprint.

    Args:
        asset: name of the asset and of its folder in ``models/``.
        metadata: description and kinds, as :func:`dagster.graph_asset` takes them.
    """

    @dg.op(
        name=f"{asset}_fit",
        description="Train, or resume or reuse the training with the same fingerprint.",
        ins={"processed_dataset": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
    )
    def fit(
        context: dg.OpExecutionContext,
        config: FitConfig,
        experiment: Experiment,
        data_root: DataRoot,
        mlflow: dg.ResourceParam[Run],
    ) -> dg.Output[None]:
        from cxr_assets import training
        from cxr_assets.cluster.call import ClusterError
        from cxr_assets.defs import cluster
        from cxr_assets.learning.base_weights import PretrainedError, UnreachableError
        from cxr_assets.learning.lock import TrainingError
        from cxr_assets.learning.plan import plan as make_plan
        from cxr_assets.radiographs.dataset import DatasetError

        layout = data_root.pull(context)
        with reconnecting(context, UnreachableError):
            plan = make_plan(asset, experiment.resolve(), layout)
            with retried(
                *(StorageError, TrainingError, PretrainedError, DatasetError),
                *(ClusterError, cluster.StepError),
            ):
                if plan.experiment.compute.engine == "ray":
                    cluster.run(
                        *(context, plan.experiment, layout, mlflow, "fit"),
                        asset=asset,
                        fingerprint=plan.fingerprint,
                        force=config.force,
                    )
                else:
                    training.fit(plan, context.log.info, config.force)
        # Dagster infers no output after a job that has reported by Pipes.
        return dg.Output(None)

    @dg.op(
        name=f"{asset}_export",
        description="Publish the trained model as a verified bundle, with its ONNX file.",
        ins={"fitted": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
    )
    def export(
        context: dg.OpExecutionContext,
        experiment: Experiment,
        data_root: DataRoot,
        mlflow: dg.ResourceParam[Run],
    ) -> dg.Output[None]:
        import pandas as pd

        from cxr_assets import handover
        from cxr_assets.defs.assets import pictures
        from cxr_assets.evaluation import plots
        from cxr_assets.learning import export as exporting
        from cxr_assets.learning.plan import plan as make_plan

        with (
            data_root.exchanged(context) as layout,
            retried(StorageError, exporting.ExportError),
        ):
            plan = make_plan(asset, experiment.resolve(), layout)
            directory, published = exporting.export(plan, context.run_id, progress=context.log.info)
            pruned = exporting.prune(plan, context.log.info)
        handover.ended(layout, plan.work)
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
                "teacher": record.teacher or "none",
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
        group_name=GROUP,
        owners=OWNERS,
        **metadata,
    )
    def model(processed_dataset: None) -> Any:
        return export(fit(processed_dataset))

    # `graph_asset` itself takes no freshness policy.
    return model.map_asset_specs(lambda spec: dg.apply_freshness_policy(spec, WEEKLY))
