"""Keeps the newest good model in service."""

import importlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_serving import bundle
from cxr_serving.bundle import BundleError
from cxr_serving.metrics import Metrics
from cxr_serving.predictor import Predictor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What the service has at one moment.

    Attributes:
        model: the model that serves, or None.
        problem: why there is none, or why a newer one is not served; None when all is well.
    """

    model: Predictor | None
    problem: str | None


@dataclass(frozen=True)
class _Refusal:
    version: str
    files: frozenset[tuple[str, int, int, int]]
    reason: str


class Watcher:
    """Follows ``latest.json`` in a thread; loads what it names aside, then swaps it in.

    A new bundle is verified, loaded and warmed up before it replaces the one that serves, by one
    assignment to :attr:`state`; whoever took the old model before keeps it to the end. A bad bundle
    is refused, and tried again only when the pointer moves or the bundle's files change.

    Attributes:
        state: what serves now; read it once a request.
    """

    def __init__(
        self, directory: Path, asset: str, device: str, poll_seconds: float, metrics: Metrics
    ) -> None:
        """Follow the pointer in ``directory``, where bundles of ``asset`` or its releases lie."""
        self.state = State(None, "starting: no model was looked for yet")
        self._directory = directory
        self._asset = asset
        self._device = device
        self._poll_seconds = poll_seconds
        self._metrics = metrics
        self._refusal: _Refusal | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; waits for a model that is being loaded."""
        self._stopping.set()
        self._thread.join()

    def poll(self) -> None:
        """Look once: what the pointer names serves afterwards, or :attr:`state` says why not."""
        serving = self.state.model
        try:
            version = bundle.read_pointer(self._directory)
        except BundleError as error:
            self._report(str(error))
            return
        if version is None:
            self._report(
                f"no model: {self._directory / bundle.POINTER_FILE} does not exist; run the job "
                "retrain"
            )
        elif serving is not None and serving.record.version == version:
            self._report(None)
        else:
            self._try(version)

    def _run(self) -> None:
        # transformers imports this when it first loads a model: seconds that model would wait for.
        importlib.import_module("transformers.modeling_utils")
        while True:
            try:
                self.poll()
            except Exception:
                logger.exception("looking for a model failed")
            if self._stopping.wait(self._poll_seconds):
                return

    def _try(self, version: str) -> None:
        files = _snapshot(self._directory / version)
        refusal = self._refusal
        if refusal is None or (refusal.version, refusal.files) != (version, files):
            try:
                model = self._load(version)
            except Exception as error:
                logger.exception("refused asset=%s version=%s", self._asset, version)
                self._metrics.model_refusals.inc()
                reason = f"the newest model, {version}, cannot be served: {error}"
                self._refusal = refusal = _Refusal(version, files, reason)
            else:
                self._serve(model)
                return
        self._report(refusal.reason)

    def _load(self, version: str) -> Predictor:
        model = Predictor(self._directory / version, self._device)
        if (model.record.asset, model.record.version) != (self._asset, version):
            raise BundleError(
                f"{self._directory / version} holds {model.record.asset} {model.record.version}"
            )
        size = model.preprocessing.size
        if not np.isfinite(model.predict(np.zeros((1, size, size), np.uint8))).all():
            raise BundleError(f"{self._directory / version} answers a black film with NaN")
        return model

    def _serve(self, model: Predictor) -> None:
        self.state = State(model, None)
        self._metrics.model_loads.inc()
        self._metrics.model_ready.set(1)
        self._metrics.model_stale.set(0)
        self._metrics.describe_model(model.record)
        logger.info("serving asset=%s version=%s", model.record.asset, model.record.version)

    def _report(self, problem: str | None) -> None:
        if problem == self.state.problem:
            return
        self.state = State(self.state.model, problem)
        self._metrics.model_stale.set(problem is not None)
        if problem is None:
            logger.info("the model that serves is the newest again")
        else:
            logger.warning("%s", problem)


def _snapshot(directory: Path) -> frozenset[tuple[str, int, int, int]]:
    try:
        stats = [(path, path.stat()) for path in directory.rglob("*")]
    except OSError:
        return frozenset()
    return frozenset((str(p), s.st_mtime_ns, s.st_size, s.st_ino) for p, s in stats)
