"""Keeps the newest valid model in service, or the pinned one."""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cxr_serving.http.metrics import Metrics
from cxr_serving.model import bundle, store
from cxr_serving.model.bundle import BundleError, BundleRecord, Pointer
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.remote_errors import RemoteError
from cxr_serving.model.replica import Replica

# For an answer that a bucket owes when the service stops.
_SECONDS_TO_STOP = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """The models at one moment.

    Attributes:
        model: the model that serves, or None.
        problem: why there is none, or why a newer one does not serve; None when all is well.
        previous: the model that served before, still loaded.
        pinned: the version that serves even when a newer one appears, if any.
    """

    model: Predictor | None = None
    problem: str | None = None
    previous: Predictor | None = None
    pinned: str | None = None


@dataclass(frozen=True)
class Version:
    """A version on disk or in the bucket.

    Attributes:
        version: its name.
        record: its record, or None when that cannot be read or is only in the bucket.
        reason: why it was rejected, if it was.
    """

    version: str
    record: BundleRecord | None
    reason: str | None


# Path, modification time, size and inode: they change when a file does.
_Stamp = tuple[str, int, int, int]


@dataclass(frozen=True)
class _Rejection:
    seen: frozenset[_Stamp]
    reason: str


class Watcher:
    """Follows ``latest.json`` in a thread, loads the model it names, then swaps it in.

    A new bundle is verified, loaded, compared with its reference images and warmed up before it
    replaces the one that serves, by one assignment to :attr:`state`; requests that took the old
    model keep it to their end. The old one stays loaded for a rollback. A bad bundle is rejected,
    and retried only when its files or the pointer have changed, or when it is pinned.

    Where the data root is in a bucket, all this is about its local copy, which is brought up to
    date first. While the bucket does not answer, what is there serves on.

    Attributes:
        state: what serves now; read it once per request.
        polled: set once the pointer has been read, and its model loaded or rejected.
    """

    def __init__(
        self,
        directory: Path,
        asset: str,
        load: Callable[[Path], Predictor],
        poll_seconds: float,
        metrics: Metrics,
        pin: str | None = None,
        replica: Replica | None = None,
    ) -> None:
        """Follow the pointer in ``directory``.

        Args:
            directory: where bundles of ``asset`` or its releases lie.
            asset: whose bundles they must be.
            load: loads a bundle's directory, checks the model and warms it up.
            poll_seconds: between reads of the pointer.
            metrics: record which model serves.
            pin: version that serves instead of the one that the pointer names.
            replica: keeps ``directory`` as a bucket has it; None where it is the pipeline's own.
        """
        self.state = State(problem="starting: the first model is being loaded", pinned=pin)
        self._directory = directory
        self._asset = asset
        self._load = load
        self._replica = replica
        self._poll_seconds = poll_seconds
        # Why the local copy may not be the newest.
        self._outdated: str | None = None
        self._metrics = metrics
        self._metrics.model_pinned.set(pin is not None)
        self._rejections: dict[str, _Rejection] = {}
        # Held while the thread, or a request that pins, decides which model serves.
        self._deciding = threading.Lock()
        self.polled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Start to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; waits for a model that is being loaded, but not for a silent bucket."""
        self._stopping.set()
        if self._replica is not None:
            self._replica.close()
        self._thread.join(_SECONDS_TO_STOP)
        with self._deciding:
            self.polled.set()  # nothing comes that is worth waiting for

    def poll(self) -> None:
        """Read the pointer once: its model serves afterwards, or :attr:`state` says why not."""
        if self._replica is not None:
            # Before the lock: a slow download keeps no request waiting.
            try:
                self._replica.follow(self.state.pinned)
                self._outdated = None
            except BundleError as error:
                self._outdated = str(error)
        with self._deciding:
            if not self._stopping.is_set():
                self._follow()

    def pin(self, version: str) -> None:
        """Serve ``version`` from now on, even when a newer one appears.

        Raises:
            BundleError: it cannot be served; nothing has changed then.
        """
        if self._replica is not None:
            self._replica.bring(version)
        with self._deciding:
            if not self._serves(version):
                self._rejections.pop(version, None)
                self._serve(self._obtain(version))
            self._pinned(version)
            self._report(None)

    def unpin(self) -> None:
        """Follow the pointer again."""
        with self._deciding:
            self._pinned(None)
            self._follow()

    def versions(self) -> list[Version]:
        """The versions on disk or in the bucket, newest first."""
        local = store.versions(self._directory)
        remote: set[str] = set()
        if self._replica is not None:
            with suppress(RemoteError):  # the state says so
                remote = self._replica.versions()
        found = []
        for version in sorted({*local, *remote}, reverse=True):
            rejection = self._rejections.get(version)
            reason = None if rejection is None else rejection.reason
            if version not in local:
                found.append(Version(version, None, reason))
                continue
            try:
                found.append(Version(version, BundleRecord.read(self._directory / version), reason))
            except BundleError as error:
                found.append(Version(version, None, reason or str(error)))
        return found

    def _run(self) -> None:
        while True:
            try:
                self.poll()
            except Exception:
                logger.exception("following the pointer failed")
            self.polled.set()
            if self._stopping.wait(self._poll_seconds):
                return

    def _follow(self) -> None:
        if self.state.pinned is not None:
            self._follow_to(self.state.pinned)
            return
        try:
            pointer = Pointer.read(self._directory)
        except BundleError as error:
            self._report(str(error))
            return
        if pointer is None:
            self._report(
                f"no model: {self._directory / bundle.POINTER_FILE} does not exist; run the job "
                "retrain"
            )
            return
        self._follow_to(pointer.version)
        if self._serves(pointer.version):
            self._metrics.model_confirmed.set(pointer.confirmed_at.timestamp())

    def _follow_to(self, version: str) -> None:
        if self._serves(version):
            self._report(None)
        else:
            try:
                self._serve(self._obtain(version))
            except BundleError as error:
                which = "pinned" if self.state.pinned else "newest"
                problem = f"the {which} model, {version}, cannot be served: {error}"
                self._report(problem, rejected=version)

    def _serves(self, version: str) -> bool:
        return self.state.model is not None and self.state.model.record.version == version

    def _obtain(self, version: str) -> Predictor:
        previous = self.state.previous
        if previous is not None and previous.record.version == version:
            return previous
        directory = self._directory / version
        seen = _stamps([self._directory / bundle.POINTER_FILE, *directory.rglob("*")])
        rejection = self._rejections.get(version)
        if rejection is not None and rejection.seen == seen:
            raise BundleError(rejection.reason)
        logger.info("loading", extra={"asset": self._asset, "version": version})
        try:
            if self._replica is not None:
                self._replica.require(version)
            model = self._load(directory)
            if (model.record.asset, model.record.version) != (self._asset, version):
                raise BundleError(f"{directory} holds {model.record.asset} {model.record.version}")
        except Exception as error:
            logger.exception("rejected", extra={"asset": self._asset, "version": version})
            self._metrics.model_rejections.inc()
            self._rejections[version] = _Rejection(seen, str(error))
            raise BundleError(str(error)) from error
        self._rejections.pop(version, None)
        return model

    def _serve(self, model: Predictor) -> None:
        self.state = replace(
            self.state,
            model=model,
            problem=self._outdated or model.warning,
            previous=self.state.model,
        )
        self._metrics.model_loads.inc()
        self._metrics.model_ready.set(1)
        self._metrics.model_stale.set(self._outdated is not None)
        self._metrics.name_rejected(None)
        self._metrics.describe_model(model.record, model.runtime)
        logger.info(
            "serving",
            extra={
                "asset": model.record.asset,
                "version": model.record.version,
                "runtime": model.runtime,
            },
        )

    def _pinned(self, version: str | None) -> None:
        self.state = replace(self.state, pinned=version)
        self._metrics.model_pinned.set(version is not None)
        logger.info("pinned" if version else "unpinned", extra={"version": version})

    def _report(self, problem: str | None, rejected: str | None = None) -> None:
        problem = self._outdated or problem
        self._metrics.model_stale.set(problem is not None)
        self._metrics.name_rejected(rejected)
        if problem is None and self.state.model is not None:
            problem = self.state.model.warning
        if problem == self.state.problem:
            return
        self.state = replace(self.state, problem=problem)
        if problem is None:
            logger.info("the newest or pinned model serves again")
        else:
            logger.warning("%s", problem)


def _stamps(paths: Iterable[Path]) -> frozenset[_Stamp]:
    with suppress(OSError):  # an unreadable file has no stamp, so the bundle is retried
        stats = [(path, path.stat()) for path in paths if path.exists()]
        return frozenset((str(p), s.st_mtime_ns, s.st_size, s.st_ino) for p, s in stats)
    return frozenset()
