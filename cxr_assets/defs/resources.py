"""Dagster resources: the experiment, the data root and MLflow."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field

from cxr_assets import experiment as experiments
from cxr_assets import overrides, tracking
from cxr_assets.defs.retries import reconnecting
from cxr_assets.layout import Layout
from cxr_assets.settings import load

settings = load()

# Dagster runs whose executor is in this process, which ends their MLflow runs. A step in a process
# of its own adds to a run that another process ends.
executing: set[str] = set()


class Experiment(dg.ConfigurableResource[experiments.Experiment]):
    """Settings of images, models and training, the same for the whole graph."""

    preset: str = Field(
        default=settings.experiment,
        description="Preset to start from: demo, scratch, distilled or full.",
    )
    overrides: str = Field(
        default=settings.overrides,
        description="Hydra overrides, separated by spaces and quoted as in a shell. For example: "
        "seed=7 data.folder='/data/my images'",
    )

    def resolve(self) -> experiments.Experiment:
        """Compose preset and overrides.

        Raises:
            ExperimentError: unknown preset or key, value out of range, or unclosed quote.
        """
        return experiments.compose(self.preset, overrides.split(self.overrides))


class NoFolderError(Exception):
    """Libraries would find no folder for temporary files or settings."""


class DataRoot(dg.ConfigurableResource[Layout]):
    """The folder that the graph writes to, or the bucket that shares it with other machines."""

    path: str = Field(
        default=settings.layout.url or str(settings.layout.root),
        description="Data root: an absolute path, or s3://bucket/prefix. Datasets, models, reports "
        "and releases go there.",
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Look for the folders that libraries need besides, some of them late in a training.

        Raises:
            NoFolderError: there is none.
        """
        try:
            tempfile.gettempdir()
            Path.home()
        except FileNotFoundError as error:
            raise NoFolderError(
                f"{error.strerror}: make one of them writable, or set TMPDIR to a folder that is"
            ) from error
        except RuntimeError as error:
            raise NoFolderError(
                "this user has no name and no home directory: set HOME to a folder, such as /tmp"
            ) from error

    @property
    def layout(self) -> Layout:
        """The disk layout below the data root."""
        return settings.layout_of(self.path)

    def pull(self, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Layout:
        """The layout, with what is new in the bucket, if the data root is in one."""
        from cxr_assets import exchange
        from cxr_serving.model.remote_errors import UnreachableError

        with reconnecting(context, UnreachableError):
            exchange.pull(self.layout, context.log.info)
        return self.layout

    @contextmanager
    def exchanged(
        self, context: dg.OpExecutionContext | dg.AssetExecutionContext
    ) -> Iterator[Layout]:
        """The same; what the body changes is left in the bucket."""
        from cxr_assets import exchange
        from cxr_serving.model.remote_errors import UnreachableError

        with (
            reconnecting(context, UnreachableError),
            exchange.exchanged(self.layout, context.log.info),
        ):
            yield self.layout


@dg.resource(
    config_schema={
        "uri": dg.Field(
            dg.Noneable(str),
            default_value=settings.mlflow_uri,
            description="Tracking URI. Without one: a SQLite file in the data root.",
        )
    },
    required_resource_keys={"data_root", "experiment"},
    description="One MLflow run per Dagster run, with a nested run per training.",
)
def mlflow(context: dg.InitResourceContext) -> Iterator[tracking.Run | None]:
    """Start the MLflow run. The executor ends it, as it knows how the Dagster run ended."""
    instance, run_id = context.instance, context.run_id
    run = instance.get_run_by_id(run_id) if instance and run_id else None
    if run is not None and run.is_finished:
        # `dagster job execute` sets up all resources again after the run, to read its outputs.
        yield None
        return
    root: DataRoot = context.resources.data_root
    experiment: Experiment = context.resources.experiment
    try:
        required = experiment.resolve().tracking.required
    except experiments.ExperimentError:
        required = False  # the first asset reports the error
    log = context.log.warning if context.log else print
    uri = tracking.open_store(context.resource_config["uri"], root.layout, log, required)

    def create() -> str:
        from dagster_mlflow.resources import MlFlow

        from cxr_assets.store import EXPERIMENT

        settings = {"experiment_name": EXPERIMENT, "mlflow_tracking_uri": uri}
        opened: str = MlFlow(context.replace_config(settings)).active_run().info.run_id
        return opened

    ours = run_id in executing
    try:
        yield tracking.start_run(run.job_name if run else "dagster", create, ours)
    finally:
        if not ours:
            tracking.close("KILLED")
