"""``cxr train``: the main model without Dagster, once or in a sweep of Hydra overrides."""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.console import Console

from cxr_assets import tracking
from cxr_assets.cluster.call import ClusterError, require
from cxr_assets.experiment import CONF, Experiment, ExperimentError, compose
from cxr_assets.layout import Layout
from cxr_assets.overrides import beyond_hydra, for_hydra, join, split, without_places
from cxr_assets.progress import Progress
from cxr_assets.settings import SettingsError, load
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import HISTORY_FILE, BundleRecord

FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Attributes:
        overrides: the Hydra overrides of the sweep, one value each.
        experiment: all settings.
    """

    overrides: tuple[str, ...]
    experiment: Experiment


@dataclass(frozen=True)
class Result:
    """The outcome of a training; its metrics are None if it failed.

    Attributes:
        overrides: of the job, as ``CXR_OVERRIDES`` takes them.
        version: of the bundle, or ``failed``.
        macro_f1, auroc: on the validation split.
        epochs: number of epochs trained.
        minutes: duration of those epochs, also if the bundle is reused.
        reason: why it failed; None if it did not.
    """

    overrides: str
    version: str
    macro_f1: float | None = None
    auroc: float | None = None
    epochs: int | None = None
    minutes: float | None = None
    reason: str | None = None


def expand(
    preset: str,
    overrides: Sequence[str],
    defaults: Sequence[str] = (),
    multirun: bool = True,
) -> list[Job]:
    """The jobs of a sweep: every combination of values, in Hydra's order.

    Args:
        preset: used unless ``experiment=...`` is among the overrides.
        overrides: in the syntax of Hydra's multirun: ``seed=0,1,2``, ``seed=range(3)``.
        defaults: overrides that are applied first and not named in the jobs.
        multirun: whether a comma separates values in paths, too.

    Raises:
        ExperimentError: the settings of a job are invalid, or it cannot run with them.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF)):
            parser = OverridesParser.create(GlobalHydra.instance().config_loader())
            before = [for_hydra(text) for text in defaults if not beyond_hydra(text)]
            swept_over = [for_hydra(text, multirun) for text in overrides if not beyond_hydra(text)]
            parsed = parser.parse_overrides([*before, *swept_over])
            (combinations,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise ExperimentError(" ".join(str(error).split())) from error
    swept = {override.get_key_element() for override in parsed[len(before) :]}
    fixed = [text for text in (*defaults, *overrides) if beyond_hydra(text)]
    given = tuple(text for text in overrides if beyond_hydra(text))
    jobs = []
    for combination in combinations:
        values = dict(override.split("=", 1) for override in combination)
        named = tuple(f"{key}={value}" for key, value in values.items() if key in swept) + given
        chosen = values.pop("experiment", preset)
        settings = compose(chosen, [*(f"{key}={value}" for key, value in values.items()), *fixed])
        settings.require_runnable()
        jobs.append(Job(named, settings))
    return jobs


def run(
    jobs: Sequence[Job], layout: Layout, progress: Progress, outer: str | None = None
) -> Iterator[Result]:
    """Train the jobs one after the other, on a cluster several at the same time.

    If one fails, the others still run.

    Args:
        jobs: of a sweep.
        layout: of the data root.
        progress: called with lines about each.
        outer: id of the MLflow run that those on a cluster are nested in.
    """
    if jobs[0].experiment.compute.engine == "ray":
        require(layout)
        from cxr_assets.cluster import trials

        with trials.started([job.experiment for job in jobs], layout, outer) as started:
            yield from _results(jobs, started, progress)
        return
    # Not before the settings are known to be valid: it imports torch and Lightning.
    from cxr_assets import training

    here = [partial(training.train, job.experiment, layout, progress) for job in jobs]
    yield from _results(jobs, here, progress)


def _results(
    jobs: Sequence[Job], trainings: Sequence[Callable[[], Path]], progress: Progress
) -> Iterator[Result]:
    from cxr_assets import training

    for number, (job, train) in enumerate(zip(jobs, trainings, strict=True), 1):
        overrides = join(job.overrides)
        progress(f"job {number}/{len(jobs)}: {overrides or job.experiment.preset}")
        try:
            result = _result(overrides, train())
        except Exception as error:  # noqa: BLE001 - reported, and a row of the table
            if not isinstance(error, training.EXPLAINED):
                progress(traceback.format_exc())
            reason = " ".join(str(error).split()) or type(error).__name__
            progress(f"error: {reason}")
            result = Result(overrides, FAILED, reason=reason)
        yield result


def _result(overrides: str, directory: Path) -> Result:
    record = BundleRecord.read(directory)
    history = pd.read_csv(directory / HISTORY_FILE)
    return Result(
        overrides,
        record.version,
        record.validation["macro_f1"],
        record.validation["auroc"],
        len(history),
        float(history["seconds"].sum()) / 60,
    )


def save(table: Path, results: pd.DataFrame, progress: Progress) -> None:
    """Replace a table on disk; a failure is reported and does not end the sweep."""
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        write_file(table, results.to_csv(index=False).encode())
    except OSError as error:
        progress(
            f"{table} cannot be written: {error.strerror}. Its rows are printed at the end. Free "
            "space, or make the data root writable"
        )


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the results that differ in the seed alone.

    Args:
        results: one row per :class:`Result`.

    Returns:
        One row per combination of the other overrides: ``overrides``, ``seeds`` (how many
        succeeded), ``macro_f1``, ``macro_f1_std``, ``auroc``, ``auroc_std``, ``minutes`` (the
        mean). The standard deviation is the sample's, with n - 1 in the denominator (``ddof=1``).
    """
    settings = results["overrides"].str.replace(r"(^| )seed=\S+", "", regex=True).str.strip()
    return (
        results.groupby(settings, sort=False)
        .agg(
            seeds=("macro_f1", "count"),
            macro_f1=("macro_f1", "mean"),
            macro_f1_std=("macro_f1", partial(pd.Series.std, ddof=1)),
            auroc=("auroc", "mean"),
            auroc_std=("auroc", partial(pd.Series.std, ddof=1)),
            minutes=("minutes", "mean"),
        )
        .reset_index()
    )


def main(overrides: Sequence[str], multirun: bool) -> None:
    """Train, print the table, and exit: 0 if all succeeded, 1 if not, 130 after Ctrl-C.

    Args:
        overrides: Hydra overrides, applied after those of ``CXR_OVERRIDES``.
        multirun: whether to train every combination of their values.
    """
    try:
        settings = load()
        defaults = split(settings.overrides)
        jobs = expand(settings.experiment, overrides, defaults, multirun)
    except (SettingsError, ExperimentError) as error:
        sys.exit(f"error: {error}")
    layout = settings.layout
    if len(jobs) > 1 and not multirun:
        sys.exit(f"error: these overrides make {len(jobs)} jobs: train them all with -m")
    progress = partial(print, file=sys.stderr, flush=True)
    required = any(job.experiment.tracking.required for job in jobs)
    sweep = tracking.training_run("sweep", {"overrides": join(without_places(overrides))})
    table = layout.sweeps / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.csv"
    rows: list[dict[str, Any]] = []
    try:
        tracking.open_store(settings.mlflow_uri, layout, progress, required)
        with sweep if multirun else nullcontext() as tracked:
            for result in run(jobs, layout, progress, tracked.id if tracked else None):
                rows.append(asdict(result))
                if multirun:
                    save(table, pd.DataFrame(rows), progress)
            if tracked is not None and table.exists():
                tracked.log_artifact(table)
                progress(f"table: {table}")
    except KeyboardInterrupt:
        progress("stopped: the same command resumes from here")
        sys.exit(130)
    except (tracking.TrackingError, ClusterError) as error:
        sys.exit(f"error: {error}")
    finally:
        tracking.close("KILLED")
        if rows:
            _show(pd.DataFrame(rows))
    sys.exit(int(any(row["version"] == FAILED for row in rows)))


def _show(results: pd.DataFrame) -> None:
    out = Console(highlight=False).out
    out(results.round({"macro_f1": 3, "auroc": 3, "minutes": 1}).to_markdown(index=False))
    seeds = over_seeds(results)
    seeds = seeds[seeds["seeds"] > 1]
    if not seeds.empty:
        for metric in ("macro_f1", "auroc"):
            spread = seeds.pop(f"{metric}_std").map("{:.3f}".format)
            seeds[metric] = seeds[metric].map("{:.3f}".format) + " ± " + spread
        out("\nmean ± sample standard deviation (n - 1) over seeds\n")
        out(seeds.round({"minutes": 1}).to_markdown(index=False))
