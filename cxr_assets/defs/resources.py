"""Dagster resources: the experiment, the data root and MLflow."""

from pathlib import Path

import dagster as dg
from dagster_mlflow.resources import MlFlow
from pydantic import Field

from cxr_assets import experiment as experiments
from cxr_assets import overrides, tracking
from cxr_assets.layout import Layout
from cxr_assets.settings import load

settings = load()


class Experiment(dg.ConfigurableResource[experiments.Experiment]):
    """What is trained on what; one setting moves the whole graph."""

    preset: str = Field(default=settings.experiment, description="demo, scratch or full")
    overrides: str = Field(
        default=settings.overrides,
        description="Hydra overrides, separated by spaces and quoted as in a shell, such as: "
        "seed=7 data.folder='/data/my images'",
    )

    def resolve(self) -> experiments.Experiment:
        """Compose preset and overrides.

        Raises:
            ExperimentError: unknown preset or key, a value out of range, or an open quotation.
        """
        return experiments.compose(self.preset, overrides.split(self.overrides))


class DataRoot(dg.ConfigurableResource[Layout]):
    """Where everything the graph writes lies."""

    path: str = Field(default=str(settings.layout.root), description="Data root, an absolute path")

    @property
    def layout(self) -> Layout:
        """The disk layout below the data root."""
        return Layout(Path(self.path))


@dg.resource(
    config_schema={"uri": dg.Field(dg.Noneable(str), default_value=settings.mlflow_uri)},
    required_resource_keys={"data_root", "experiment"},
    description="One MLflow run for each Dagster run, which dagster-mlflow opens.",
)
def mlflow(context: dg.InitResourceContext) -> tracking.Run | None:
    """Begin the MLflow run; the executor ends it, which knows how the Dagster run ended."""
    instance, run_id = context.instance, context.run_id
    run = instance.get_run_by_id(run_id) if instance and run_id else None
    if run is not None and run.is_finished:
        # `dagster job execute` sets up all resources once more after the run, to read its outputs.
        return None
    root: DataRoot = context.resources.data_root
    experiment: Experiment = context.resources.experiment
    try:
        required = experiment.resolve().tracking.required
    except experiments.ExperimentError:
        required = False  # the first asset says what is wrong with it
    log = context.log.warning if context.log else print
    uri = tracking.open_store(context.resource_config["uri"], root.layout, log, required)

    def create() -> str:
        settings = {"experiment_name": tracking.EXPERIMENT, "mlflow_tracking_uri": uri}
        opened: str = MlFlow(context.replace_config(settings)).active_run().info.run_id
        return opened

    return tracking.start_run(run.job_name if run else "dagster", create)
