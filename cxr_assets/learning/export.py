"""Publishing a finished fit as a bundle, and deleting old bundles."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

from filelock import FileLock, Timeout

from cxr_assets.learning.lock import locked
from cxr_assets.learning.plan import Plan
from cxr_assets.progress import Progress, held, remedy
from cxr_assets.radiographs import dataset
from cxr_serving.model import hashes, store
from cxr_serving.model.bundle import HISTORY_FILE

# How long an interrupted training can be resumed: checkpoints are too large to keep longer.
_ABANDONED = timedelta(days=30)
_WORK = re.compile(r"[0-9a-f]{16}")


class ExportError(Exception):
    """A training cannot be exported; the message says why and what to do."""


class ParityError(ExportError):
    """The exported network gives other answers than the trained one."""


def export(
    plan: Plan,
    dagster_run_id: str | None = None,
    point: bool = True,
    progress: Progress = lambda line: None,
) -> tuple[Path, bool]:
    """Publish a finished fit as a bundle, or find the bundle published before.

    The same training on the same machine gives the same weights, configuration and ``best.ckpt``,
    byte for byte; ``history.csv`` holds seconds, and ``bundle.json`` the time and the runs.

    Args:
        plan: of the training.
        dagster_run_id: run that publishes it, if any.
        point: whether ``latest.json`` is set to it, so that it is served.
        progress: called with a line before it waits for another process.

    Returns:
        The bundle's directory, and whether it was published now.

    Raises:
        ExportError: there is neither a finished fit nor a bundle of this fingerprint.
        BundleError: the bundle cannot be written.
        ParityError: the ONNX network gives other answers.
        TrainingError: the lock cannot be written.
    """
    with locked(plan, progress), _publishing(plan, progress):
        published = plan.published()
        if plan.finished and not (published and _is_of_this_fit(published, plan)):
            _require_dataset(plan)
            # Here, because it imports what computes, which takes seconds.
            from cxr_assets.learning.bundling import publish

            directory = publish(plan, dagster_run_id, point)
            plan.discard()
            return directory, True
        if published is None:
            raise ExportError(
                f"no finished fit of {plan.asset} in {plan.work} and no bundle of fingerprint "
                f"{plan.fingerprint[:8]} in {plan.bundles}: run the fit first (settings, data or "
                "code have changed since)"
            )
        if point:
            store.write_pointer(plan.bundles, published.name)
        if plan.finished:  # whoever published it was killed before this
            plan.discard()
        return published, False


def prune(plan: Plan, progress: Progress = lambda line: None) -> list[str]:
    """Delete the asset's oldest bundles, and the work folders of abandoned trainings.

    Bundles are kept to the experiment's ``keep_versions``, and those that ``latest.json``, a report
    or a release names.

    Returns:
        The deleted versions.
    """
    # By the clock of the file system, as this machine's may be another one.
    with NamedTemporaryFile(dir=plan.layout.root, prefix=".now") as made:
        now = Path(made.name).stat().st_mtime
    for lock in sorted(plan.work.parent.glob("*.lock")):
        if _WORK.fullmatch(lock.stem):
            _prune_work(lock, now)
    layout = plan.layout
    with _publishing(plan, progress):
        named = [*store.versions(layout.reports), *store.versions(layout.releases)]
        return store.prune(plan.bundles, plan.experiment.keep_versions, protect=named)


def _prune_work(lock: Path, now: float) -> None:
    work = lock.with_suffix("")
    newest = max(path.stat().st_mtime for path in (lock, *work.glob("*")))
    if now - newest < _ABANDONED.total_seconds():
        return
    with suppress(Timeout), FileLock(lock, blocking=False):  # no training of it runs
        if work.exists():
            shutil.rmtree(work)
        lock.unlink()


def _is_of_this_fit(directory: Path, plan: Plan) -> bool:
    """Whether a bundle holds the fit in the work folder: the seconds in the curves say so."""
    return hashes.of_file(directory / HISTORY_FILE) == hashes.of_file(plan.work / HISTORY_FILE)


def _require_dataset(plan: Plan) -> None:
    now = dataset.DatasetRecord.read(plan.layout.processed).data_version
    if now != plan.dataset.data_version:
        raise ExportError(
            f"the processed dataset has changed since {plan.asset} was trained (version {now[:8]}, "
            f"not {plan.dataset.data_version[:8]}), so the bundle could not say which images it "
            "knows: train it again"
        )


@contextmanager
def _publishing(plan: Plan, progress: Progress) -> Iterator[None]:
    """Hold the lock of an asset's bundles, so that none is pruned while it is being published."""
    try:
        plan.bundles.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{remedy(error, plan.bundles)}, then run the same again: the finished fit is kept"
        ) from error
    with held(plan.bundles / ".lock", "a model is being published", progress):
        yield
