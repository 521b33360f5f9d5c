"""Retrainings with a random fault in half of them, the service under constant load meanwhile.

    python -m benchmarks.unattended.soak --root build/soak --retrainings 50

A retraining that a fault ends is repeated by the next one. Prints a line for each, and exits with 1
on any breach: a failed request; a retraining that does not end, or fails without a fault; a
process, file handle, temporary file or lock that stays behind; a fault that struck nothing; a data
root that keeps growing, or records that grow by more than they should.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random

import httpx
from dagster_graphql import DagsterGraphQLClient

from benchmarks import images
from benchmarks.measure import machine
from benchmarks.serving import load
from benchmarks.serving.server import OURS, free_port, serve
from benchmarks.unattended.faults import Fault, Site, clear, plan
from benchmarks.unattended.pipeline import CHECKOUT, Late, Pipeline, Run, ended_by_sigterm
from benchmarks.unattended.watching import Measure, flat, measure

sys.path.insert(0, str(CHECKOUT / "tests"))

import mlflow_server

_KEEP = 2
_SETTINGS = (
    *("data.synthetic_patients=8", "data.image_size=32", "trainer.max_epochs=4"),
    # A rule that lets it pass: whether it is any good is not the question here.
    *("release.rule.margin=-1", "release.rule.non_inferiority=1", "release.rule.class_loss=1"),
    *("release.rule.site_loss=1", "release.rule.calibration_error=1", f"keep_versions={_KEEP}"),
)
# The data root, with room for what a retraining of this size writes.
_DISK = "256m"
_PAUSE = 0.2
# Handles of a process that stays: databases and connections come and go.
_HANDLES = 12
# How often the moment of a fault is drawn until it comes while the run is there.
_DRAWS = 5
_RETRY_SECONDS = 0.02


class Soak:
    """The pipeline and the service below a folder, and retrainings that are launched by hand.

    Args:
        root: a new folder.
        patience: how many times longer than on a quiet machine everything may take.
        tracked: whether MLflow is a server, which can be down.
        say: takes a line.
    """

    def __init__(
        self, root: Path, patience: float, tracked: bool, say: Callable[[str], None]
    ) -> None:
        self._say = say
        self._stack = ExitStack()
        environment = {
            "CXR_EXPERIMENT": "demo",
            "CXR_OVERRIDES": " ".join(_SETTINGS),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).with_name("forked")),
            # The first fork waits for the imports.
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "600",
        }
        self.pipeline = Pipeline(root, environment, patience)
        self.breaches: list[str] = []
        self._tracked = tracked
        self._seed = 0
        self._row = ""
        self._struck = False
        self._port = free_port()
        self._client = DagsterGraphQLClient("127.0.0.1", port_number=self._port)

    def __enter__(self) -> "Soak":
        root, pipeline = self.pipeline.root, self.pipeline
        with ExitStack() as stack:
            mlflow, tracking = None, {}
            if self._tracked:
                (root / "mlflow").mkdir()
                mlflow = stack.enter_context(
                    mlflow_server.Server(root / "mlflow", 120 * pipeline.patience)
                )
                tracking = {"CXR_MLFLOW_URI": mlflow.url}
            self.site = Site(pipeline, mlflow)
            stack.enter_context(pipeline)
            pipeline.start(**tracking)
            pipeline.launch(
                "webserver",
                *("dagster-webserver", "--host", "127.0.0.1", "--port", str(self._port)),
                *("--workspace", str(root / "workspace.yaml")),
            )
            pipeline.until(self._connects, 120, "the webserver")
            port = free_port()
            environment = {
                "CXR_DATA_ROOT": str(pipeline.layout.root),
                "CXR_PORT": str(port),
                "TMPDIR": str(root / "tmp"),
            }
            self._service = stack.enter_context(serve(OURS, root, port, environment, "/health"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _connects(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/server_info").is_success
        except httpx.TransportError:
            return False

    def follow(self, planned: Sequence[Fault | None], chance: Random) -> None:
        """Retrain twice without a fault, for a model and the usual time, and then as planned.

        Args:
            planned: a fault or none for each retraining.
            chance: of moments and places.
        """
        self._say("| | fault | what | ended | seconds | MiB | handles | processes |")
        self._say("|---:|---|---|---|---:|---|---|---:|")
        for _ in range(2):  # the first one waits for imports
            usual = self._retrain(0, None, chance).seconds
        self._service.wait(lambda: self._service.client.get("/ready").status_code == 200)
        images.make(self.pipeline.root / "images", 8)
        output = self.pipeline.root / "load.json"
        loading = load.start(
            self._service.port, self.pipeline.root / "images", output, 1, seconds=1e6, pause=_PAUSE
        )
        measures: list[Measure] = []
        try:
            for number, fault in enumerate(planned, 1):
                for _ in range(_DRAWS):
                    run = self._retrain(number, fault, chance, usual)
                    first = measures[0] if measures else None
                    measures.append(self.look(first, self._service.process.pid))
                    if fault is None or self._struck:
                        break
                else:
                    self.breaches.append(f"retraining {number}: {_DRAWS} times nothing was struck")
                usual = usual if fault else run.seconds
        finally:
            loading.terminate()
            self.breaches += flat(measures[2 * _KEEP :], self._say)
            self._answered(loading, output)

    def _retrain(self, number: int, fault: Fault | None, chance: Random, usual: float = 0) -> Run:
        what: str | None = ""
        if fault is not None and fault.before:
            what = fault.strike(self.site, chance)
        run_id = self._launch()
        # Another one may come first: the daemon launches again what was killed.
        self.pipeline.until(lambda: not self.pipeline.queued(run_id), 300, "the queue is empty")
        started = time.monotonic()
        if fault is not None and not fault.before:
            what = self._strike(fault, run_id, chance, usual)
        self._struck = what is not None
        try:
            run = self.pipeline.ended(run_id)
        finally:
            if fault is not None and self._struck:
                fault.repair(self.site)
            clear(self.site)
        run = replace(run, seconds=time.monotonic() - started)
        if run.status == "SUCCESS":
            self._seed += 1
        elif fault is None or fault.survived:
            self.breaches.append(f"retraining {number} ended with {run.status}")
        said = "too late" if what is None else what
        self._row = f"| {number} | {fault.name if fault else ''} | {said} | {run.status.lower()} | "
        self._row += f"{run.seconds:.0f}"
        return run

    def _strike(self, fault: Fault, run_id: str, chance: Random, usual: float) -> str | None:
        """Strike a run at a random moment; says what, or None if it had ended before."""
        started = time.monotonic()
        time.sleep(chance.uniform(0, usual))
        while not self.pipeline.finished(run_id):
            if (what := fault.strike(self.site, chance)) is not None:
                return f"{what} after {time.monotonic() - started:.1f} s".strip()
            # Its process has not started.
            time.sleep(_RETRY_SECONDS)
        return None

    def _launch(self) -> str:
        overrides = " ".join((*_SETTINGS, f"seed={self._seed}"))
        config = {"resources": {"experiment": {"config": {"overrides": overrides}}}}
        return self._client.submit_job_execution(
            "retrain",
            repository_location_name="cxr",
            repository_name="__repository__",
            run_config=config,
        )

    def look(self, first: Measure | None, service: int) -> Measure:
        """What is there when a retraining has gone, and must have been there at first.

        Args:
            first: what was there; None if this is the first look.
            service: process id.
        """
        found = measure(self.pipeline, service)
        if first is not None:

            def gone() -> bool:
                nonlocal found
                found = measure(self.pipeline, service)
                return (
                    len(found.processes) <= len(first.processes)
                    and found.temporary <= first.temporary
                    and not found.locks
                )

            try:
                self.pipeline.until(gone, 90, "what a retraining leaves behind is gone")
            except Late as late:
                self.breaches.append(f"{late}: {found}")
            for name, number in found.handles.items():
                if number > first.handles[name] + _HANDLES:
                    self.breaches.append(
                        f"{name} has {number} open files, {first.handles[name]} at first"
                    )
        handles = ", ".join(f"{name} {number}" for name, number in found.handles.items())
        disk = ", ".join(f"{part} {size / 2**20:.1f}" for part, size in found.disk.items())
        self._say(f"{self._row} | {disk} | {handles} | {len(found.processes)} |")
        return found

    def _answered(self, loading: subprocess.Popen[bytes], output: Path) -> None:
        if loading.wait() != 0:
            self.breaches.append("the load failed: see above")
            return
        record = load.read(output)
        if record.failed:
            self.breaches.append(f"{len(record.failed)} requests failed: {record.failed[0]}")
        versions = {one.json()["model"]["version"] for one in record.answers if one.status == 200}
        slowest = max(answer.seconds for answer in record.answers)
        self._say(
            f"\n{len(record.answers)} requests in {record.seconds:.0f} s, {len(record.failed)} "
            f"failed, the slowest took {slowest:.2f} s; {len(versions)} models answered"
        )


def _isolated() -> None:
    """Start this command again where it may mount a disk that nobody else sees."""
    if "_CXR_SOAK" not in os.environ:
        os.environ["_CXR_SOAK"] = "1"
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", "--mount", *user, sys.executable, "-m", __spec__.name, *sys.argv[1:]]
        os.execvp(command[0], command)


def main() -> None:
    """Retrain, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("build/soak"), help="a new folder")
    parser.add_argument("--retrainings", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument(
        "--patience", type=float, default=1, metavar="FACTOR",
        help="how many times longer everything may take, on a busy machine",
    )  # fmt: skip
    arguments = parser.parse_args()
    ended_by_sigterm()
    root: Path = arguments.root.resolve()
    if "_CXR_SOAK" not in os.environ and root.exists():
        sys.exit(f"{root} exists: delete it, or name a new folder with --root")
    _isolated()

    def say(line: str) -> None:
        print(line, flush=True)

    say(f"seed {arguments.seed}; {machine()}\n")
    chance = Random(arguments.seed)
    data = root / "data"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "none", data], check=True)
    with Soak(root, arguments.patience, True, say) as soak:
        try:
            # The last one repeats what a fault may have ended.
            soak.follow((*plan(arguments.retrainings, chance), None), chance)
        finally:
            for breach in soak.breaches:
                say(f"BREACH: {breach}")
            say(f"load average {os.getloadavg()[0]:.1f}")
    sys.exit(bool(soak.breaches))


if __name__ == "__main__":
    main()
