"""A container: processes with a root, a network and limits of their own, as Docker makes it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from copy import copy
from pathlib import Path

from deploy.stack.composition import Service
from deploy.stack.images import CHECKOUT, Image
from deploy.stack.limits import Limits
from deploy.stack.mounts import Mounts, bind
from deploy.stack.network import Network

# Passes signals on and ends what is left behind, as with `init: true`.
INIT = Path("/usr/bin/tini-static")
PYTHON = Path(sys.executable).resolve()
_SECRETS = "/run/secrets"
_STARTING_SECONDS = 20


class Container:
    """A service's container; it may be started again after it has ended.

    Args:
        name: of the service.
        service: what docker-compose.yml says of it.
        image: what it runs.
        folder: for the volumes and logs of the stack.
        project: whose files the service mounts by a path that begins with a dot.
        secrets: files by the name of the secret.
        network: on which it has an address.
    """

    def __init__(
        self,
        name: str,
        service: Service,
        image: Image,
        folder: Path,
        project: Path,
        secrets: dict[str, Path],
        network: Network,
    ) -> None:
        self.name = name
        self.log = folder / "logs" / f"{name}.log"
        self._service = service
        self._image = image
        self._mounts = Mounts(folder / "volumes", project)
        self._secrets = secrets
        self._network = network
        self._limits = Limits(name, service.mem_limit, service.pids_limit)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start its command in a new root.

        Raises:
            MountError: a folder that it mounts does not exist.
        """
        # On a file system of its own, which goes away with the container.
        layers = Path("/run/stack") / self.name
        layers.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(exist_ok=True)
        self._limits.make()
        script = "\n".join(["set -eu", *self._setup(layers), f"exec {self._command(layers)}"])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._network.enter(self.name), "unshare", "--mount", "--pid", "--ipc", "--uts",
                 "--fork", "--kill-child", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> bool:
        """Ask it to end, and kill it after the grace period.

        Returns:
            Whether it ended by itself.
        """
        assert self._process is not None
        first = self._first()
        if first is not None:
            with suppress(ProcessLookupError):
                os.kill(first, getattr(signal, f"SIG{self._image.stop_signal}"))
        try:
            self._process.wait(self._service.stop_grace_period)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and with it, by --kill-child, all of the container
            self._process.wait()
            return False
        return True

    def kill(self) -> None:
        """Kill the service's process, as if memory had run out: SIGKILL."""
        first = self._first()
        started = () if first is None else children(first)
        for process in started[:1] if self._service.init else (first,):
            if process is not None:
                os.kill(process, signal.SIGKILL)

    def run(
        self,
        command: Sequence[str],
        timeout: float,
        source: Path | None = None,
        target: Path | None = None,
    ) -> tuple[int, str]:
        """Run a command inside, as ``docker exec`` does.

        Args:
            command: and its arguments.
            timeout: most seconds.
            source: a file of this machine that it reads as standard input.
            target: a file of this machine for its standard output.

        Returns:
            Its exit status and what it wrote, without what went to ``target``; 124 if it took
            longer than ``timeout`` seconds.
        """
        first = self._first()
        if first is None:
            return 125, "the container does not run"
        enter = ["nsenter", f"--target={first}", "--mount", "--pid", "--ipc", "--uts", "--net"]
        with ExitStack() as files:
            given = files.enter_context(source.open("rb")) if source else subprocess.DEVNULL
            taken = files.enter_context(target.open("wb")) if target else subprocess.PIPE
            process = files.enter_context(subprocess.Popen(
                [*enter, "--root", *self._as_user(), *command],
                stdin=given, stdout=taken, stderr=subprocess.PIPE if target else subprocess.STDOUT,
                text=True, start_new_session=True,
            ))  # fmt: skip
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return 124, f"no answer in {timeout:g} s"
            return process.returncode, errors if target else output

    def once(self, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run a command in a container of its own, as ``docker compose run --no-deps`` does.

        Its place is this container's, which must not run meanwhile.

        Returns:
            As :meth:`run`.
        """
        other = copy(self)
        other._service = self._service.model_copy(update={"command": tuple(command)})
        other.log = self.log.with_name(f"{self.name}-once.log")
        other.log.unlink(missing_ok=True)
        other.start()
        assert other._process is not None
        try:
            status = other._process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = 124
        finally:
            other.stop()
            other.remove()
        return status, other.log.read_text(encoding="utf-8")

    def _first(self) -> int | None:
        """The process that is 1 inside, once it is what the container runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        deadline = time.monotonic() + _STARTING_SECONDS
        while time.monotonic() < deadline:
            # `unshare` has one child; while its root is still ours, it prepares the new one.
            for child in children(self._process.pid):
                with suppress(OSError):
                    if Path(f"/proc/{child}/root").readlink() != Path("/"):
                        return child
            if self._process.poll() is not None:
                return None
            time.sleep(0.02)
        return None

    def _as_user(self) -> list[str]:
        name, user, group, home = self._image.user
        rights = ["--inh-caps=-all", "--bounding-set=-all"] if self._service.cap_drop else []
        if self._service.security_opt:
            rights.append("--no-new-privs")
        environment = {"HOME": home, "USER": name, **self._image.environment}
        environment |= {k: v for k, v in self._service.environment.items() if v is not None}
        # A shell that runs this in the background has it ignore signals, which would be inherited.
        return [
            "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *rights,
            "env", "--default-signal", f"--chdir={self._image.directory}", "--ignore-environment",
            *(f"{key}={value}" for key, value in environment.items()),
        ]  # fmt: skip

    def _command(self, layers: Path) -> str:
        init = [str(INIT), "--"] if self._service.init else []
        inside = [*self._as_user(), *init, *self._image.entrypoint, *self._service.command]
        return shlex.join(["chroot", f"{layers}/root", *inside])

    def _setup(self, layers: Path) -> list[str]:
        """Shell commands that make the root ``layers/root``, as first process of the container."""
        _, user, group, home = self._image.user
        root = f"{layers}/root"
        lines = [
            *self._limits.enter(),
            f"mount -t tmpfs none {layers}",
            f"cd {layers} && mkdir upper work root",
            f"mount -t overlay none -o lowerdir={shlex.quote(str(self._image.root))},"
            "upperdir=upper,workdir=work root",
            "cd root",
            # Where a path of the container is; links such as /var/run lead elsewhere in ours.
            'at() { echo ".$(chroot . readlink -m "$1")"; }',
            "mount -t proc none proc && mount --rbind /sys sys && mount --rbind /dev dev",
            # As much shared memory as Docker gives.
            "mount -t tmpfs -o size=64m none dev/shm",
            f"hostname {self.name}",
            f"echo 'stack:x:{user}:{group}::{home}:/bin/sh' >> etc/passwd",
            "cat /etc/hosts > etc/hosts",
        ]
        for folder in (home, *self._image.folders):
            lines.append(f"mkdir -p $(at {folder}) && chown {user}:{group} $(at {folder})")
        for place, source in self._image.files.items():
            lines.append(f"cp {shlex.quote(str(source))} $(at {place})")
        for folder in self._service.tmpfs:
            options = "mode=1777,nosuid,nodev,noexec"
            lines.append(
                f"mkdir -p $(at {folder}) && mount -t tmpfs -o {options} none $(at {folder})"
            )
        # Volumes that lie in others come after them.
        for mount in sorted(self._service.volumes, key=lambda mount: mount.target):
            source = self._mounts.source(self.name, mount, self._image)
            lines += bind(source, mount.target, mount.read_only)
        for name in self._service.secrets:
            lines += bind(self._secrets[name], f"{_SECRETS}/{name}", read_only=True)
        lines += bind(INIT, str(INIT), read_only=True)
        if self._image.root == Path("/"):
            lines += bind(CHECKOUT, str(CHECKOUT), read_only=True)
            # The interpreter may lie in the home directory of whoever made the environment.
            lines += [f"chmod go+x {shlex.quote(f'.{folder}')}" for folder in _above(PYTHON)]
        if self._service.read_only:
            lines.append(f"mount -o remount,ro {root}")
        return lines

    def remove(self) -> None:
        """Forget what the kernel keeps of it, once it has ended."""
        self._limits.remove()
        shutil.rmtree(Path("/run/stack") / self.name, ignore_errors=True)


def _above(path: Path) -> list[Path]:
    return [folder for folder in path.parents if folder != Path("/")]


def children(process: int) -> tuple[int, ...]:
    """The processes that a process of one thread has started; none if it has ended."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8")
    except OSError:
        return ()
    return tuple(map(int, text.split()))
