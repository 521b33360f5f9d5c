"""A retraining on all of docker-compose.yml, from its queue to the alert that clears; or faults.

make stack; make faults
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from deploy.stack import composition, images, retraining
from deploy.stack.client import Stack
from deploy.stack.container import INIT, Container, children
from deploy.stack.faults import Faults
from deploy.stack.network import Network
from deploy.stack.supervisor import Supervisor
from deploy.stack.upkeep import Upkeep

# Of util-linux, iproute2 and tini.
_PROGRAMS = ("unshare", "nsenter", "setpriv", "chroot", "ip", "mount", str(INIT))
_STARTING_SECONDS = 600
_FIRST = 1  # process of the namespace: tini
# A network that trains in seconds, and a rule that lets it pass: whether it is any good is not the
# question here.
_ENVIRONMENT = {
    "CXR_EXPERIMENT": "demo",
    "CXR_OVERRIDES": "data.synthetic_patients=40 trainer.max_epochs=2 release.rule.margin=-1 "
    "release.rule.non_inferiority=1 release.rule.class_loss=1 release.rule.site_loss=1 "
    "release.rule.calibration_error=1",
}


class StackError(Exception):
    """The stack cannot be started on this machine."""


def _say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _phase(name: str, times: dict[str, float]) -> Iterator[None]:
    _say(f"\n{name}")
    started = time.monotonic()
    yield
    times[name] = time.monotonic() - started


def _isolated() -> None:
    """Run this command again in namespaces of its own and exit, or return if it is there.

    Nothing that it mounts, no address and no process outlives it. SIGTERM and Ctrl-C stop it as its
    end would.
    """
    if os.environ.get("_CXR_STACK") == str(os.getppid()):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
        return
    if os.geteuid() != 0:
        raise StackError("only root may make namespaces and mount: sudo make stack")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise StackError(
            f"{', '.join(missing)} cannot be found: apt install util-linux iproute2 tini"
        )
    # Apart from the terminal, which would send Ctrl-C to each service, too. `unshare` ignores
    # SIGTERM, as the first process of a namespace does: tini passes it on.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL",
         "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
         str(INIT), "--", sys.executable, "-m", "deploy.stack", *sys.argv[1:]],
        env={**os.environ, "_CXR_STACK": str(_FIRST)}, start_new_session=True,
    )  # fmt: skip

    def stop(*_: object) -> None:
        for first in children(process.pid):
            os.kill(first, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sys.exit(process.wait())


def _containers(
    described: composition.Composition, folder: Path, roots: dict[str, Path]
) -> dict[str, Container]:
    project = folder / "project"
    project.mkdir()
    subprocess.run(["sh", str(images.CHECKOUT / "deploy/secrets.sh")], cwd=project, check=True)
    secrets = {name: project / secret.file for name, secret in described.secrets.items()}
    found = {}
    for name, service in described.services.items():
        try:
            found[name] = images.of(service, roots)
        except images.ImageError as error:
            _say(f"{name} is left out: {error}")
    for name in found:
        for other in described.services[name].depends_on.keys() - found.keys():
            raise StackError(f"{name} needs {other}: apt install {other}")
    network = Network(found, folder)
    return {
        name: Container(name, described.services[name], image, folder, project, secrets, network)
        for name, image in found.items()
    }


def main() -> int:
    """Start the stack, retrain, break something, stop; 0 if all was as it should be."""
    parser = argparse.ArgumentParser(prog="python -m deploy.stack", description=__doc__)
    parser.add_argument(
        "--root", action="append", default=[], metavar="STAGE=FOLDER",
        help="root of the image that this stage of the Dockerfile makes, in place of the checkout",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=1, metavar="FACTOR",
        help="how many times longer everything may take, on a busy machine",
    )  # fmt: skip
    parser.add_argument(
        "--start", action="store_true", help="start and stop all, without a retraining"
    )
    parser.add_argument(
        "--faults", type=int, metavar="TRIES",
        help="kill each process so many times in place of following one retraining",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    options = parser.parse_args()
    roots = {
        stage: Path(folder).absolute()
        for stage, _, folder in (text.partition("=") for text in options.root)
    }
    _isolated()
    described = composition.read(images.CHECKOUT / "docker-compose.yml", _ENVIRONMENT)
    described = described.patient(options.patience)
    folder = Path(tempfile.mkdtemp(prefix="cxr-stack-", dir="/var/tmp"))
    folder.chmod(0o755)
    times: dict[str, float] = {}
    phase = partial(_phase, times=times)
    containers = _containers(described, folder, roots)
    supervisor = Supervisor(described, containers, _say)
    stack = Stack(supervisor, _say, options.patience)
    try:
        try:
            with phase("start, each service once its dependencies are healthy"):
                supervisor.start(options.patience * _STARTING_SECONDS)
            data, overrides = folder / "volumes" / "data", _ENVIRONMENT["CXR_OVERRIDES"]
            if options.faults is not None:
                _say(f"--seed {options.seed}")
                Faults(stack, data, overrides, options.faults, options.seed).follow(phase)
            elif not options.start:
                run = retraining.follow(stack, data, overrides, phase)
                Upkeep(stack, supervisor, folder).follow(run, phase)
        finally:
            with phase("stop"):
                killed = supervisor.stop()
        left = _left()
        if killed or left:
            raise AssertionError(f"had to be killed: {killed}; left behind: {left}")
    except BaseException:
        _say(f"\nThe logs are in {folder}/logs")
        raise
    shutil.rmtree(folder)
    _say("\n" + "\n".join(f"{seconds:6.0f} s  {name}" for name, seconds in times.items()))
    return 0


def _left() -> list[str]:
    """The processes in this namespace that should have gone with their containers."""
    deadline = time.monotonic() + 5
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_text(encoding="utf-8").replace("\0", " ")
            except OSError:
                continue
            if command and int(entry.name) not in (_FIRST, os.getpid()):
                found.append(command)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (StackError, composition.CompositionError) as error:
        sys.exit(f"error: {error}")
