"""Containers whose machine, user or folders are not as usual: the table in docs/deploy.md."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from composition import ROOT

from deploy.stack import images
from deploy.stack.composition import Mount, read
from deploy.stack.container import Container

# As OpenShift runs a pod: a number that no file names, without a home, in the group of root.
_OPENSHIFT = ("1000670000", 1000670000, 0, "/")
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@dataclass(frozen=True)
class Fact:
    """What a container meets.

    Attributes:
        name: as docs/deploy.md has it.
        setup: shell commands of root, in the container's root, before its command starts.
        entrypoint: before the command.
        environment: added to the service's.
        user: who runs the command, in place of the image's.
        processors: how many threads compute, if the fact says so.
        unready: what the service says instead of being ready.
        failure: what the job says when it fails.
        notice: what the log of the job says once.
    """

    name: str
    setup: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: tuple[str, int, int, str] | None = None
    processors: int | None = None
    unready: str | None = None
    failure: str | None = None
    notice: str | None = None


def _quota(files: Mapping[str, str]) -> tuple[str, ...]:
    """Shell commands that mount control groups with these files."""
    lines = ["mount -t tmpfs none sys/fs/cgroup"]
    for place, content in files.items():
        file = Path("sys/fs/cgroup") / place
        lines += [f"mkdir -p {file.parent}", f"echo {content} > {file}"]
    return tuple(lines)


def _clock(days: int) -> Fact:
    direction = "behind" if days < 0 else "ahead"
    return Fact(
        f"clock a year {direction}",
        environment={
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME": f"{days:+}d",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )


MASKED = Fact(
    "energy counters masked",
    setup=(
        "mount -t tmpfs none sys/class",
        "mkdir sys/class/powercap",
        "ln -s ../../devices/virtual/powercap/intel-rapl sys/class/powercap/intel-rapl:0",
    ),
    notice="the energy of trainings is not measured",
)
UNREADABLE_COUNTERS = Fact(
    "energy counters for root alone",
    setup=(
        "mount -t tmpfs none sys/class",
        "mkdir -p sys/class/powercap/intel-rapl:0",
        "echo package-0 > sys/class/powercap/intel-rapl:0/name",
        "install -m 400 /dev/null sys/class/powercap/intel-rapl:0/energy_uj",
    ),
)
TOPOLOGY = Fact("no CPU topology", setup=("mount -t tmpfs -o ro none sys/devices/system/cpu",))
NO_SYS = Fact("no /sys", setup=("mount -t tmpfs -o ro none sys",))
QUOTA_1 = Fact(
    "CPU quota of a half, control groups 1",
    setup=_quota({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}),
    processors=1,
)
QUOTA_2 = Fact(
    "CPU quota of a half, control groups 2",
    setup=_quota({"cpu.max": "50000 100000"}),
    processors=1,
)
NO_HOME = Fact("no HOME", entrypoint=("env", "--unset=HOME"))
STRANGER = Fact(
    "unknown user, in the group of root",
    setup=("sed -i /^stack:/d etc/passwd", "chown 0:0 .", "chgrp -R 0 data", "chmod -R g=u data"),
    entrypoint=("env", "--unset=USER"),
    user=_OPENSHIFT,
)
HOMELESS = replace(
    STRANGER,
    name="unknown user, no HOME",
    entrypoint=(*STRANGER.entrypoint, *NO_HOME.entrypoint),
    failure="set HOME to a folder",
)
SMALL_TMP = Fact("/tmp of 16 MB, in memory", setup=("mount -o remount,size=16m tmp",))
READ_ONLY_TMP = Fact(
    "/tmp read-only",
    setup=("mount -o remount,ro tmp",),
    failure="make one of them writable, or set TMPDIR to a folder that is",
)
OTHER_TMP = Fact(
    "/tmp read-only, TMPDIR=/data", setup=READ_ONLY_TMP.setup, environment={"TMPDIR": "/data"}
)
NOEXEC = Fact("noexec volume", setup=("mount -o remount,noexec,bind data",))
ROOTS_VOLUME = Fact(
    "volume of root",
    setup=("chown 0:0 data", "chmod go-w data"),
    failure=(
        "/data/raw: Permission denied. "
        "Give it to the user of this process: chown -R 1000:1000 /data,"
    ),
)
CLOSED_VOLUME = Fact(
    "volume that only root reads",
    setup=("chown 0:0 data", "chmod go= data"),
    # Dagster's own records are in a database, where there is one.
    environment={"DAGSTER_HOME": "/home/cxr"},
    unready="Permission denied; this user needs the right to read it",
    failure="Give it to the user of this process: chown -R 1000:1000 /data\n",
)
CLOSED_HOME = Fact(
    "volume that only root reads, DAGSTER_HOME on it",
    setup=CLOSED_VOLUME.setup,
    unready=CLOSED_VOLUME.unready,
    # So says Dagster of what it may not see.
    failure='$DAGSTER_HOME "/data/dagster" is not a directory or does not exist',
)
C_LOCALE = Fact(
    "C locale, no LANG",
    entrypoint=("env", "--unset=LANG"),
    environment={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
)
BEHIND, AHEAD = _clock(-365), _clock(365)
# A job takes minutes: what works is tried by one job for all that can be had at once.
WORKING = (
    (MASKED, TOPOLOGY, QUOTA_2, STRANGER, OTHER_TMP, NOEXEC, C_LOCALE),
    (UNREADABLE_COUNTERS, QUOTA_1, NO_HOME, SMALL_TMP, BEHIND),
    (NO_SYS, AHEAD),
)
FAILING = (HOMELESS, READ_ONLY_TMP, ROOTS_VOLUME, CLOSED_VOLUME, CLOSED_HOME)
FACTS = (*chain.from_iterable(WORKING), *FAILING)


def together(facts: Iterable[Fact]) -> Fact:
    """What works of each must work of all of them at once."""
    facts = tuple(facts)
    return Fact(
        ", ".join(fact.name for fact in facts),
        setup=tuple(chain.from_iterable(fact.setup for fact in facts)),
        entrypoint=tuple(chain.from_iterable(fact.entrypoint for fact in facts)),
        environment={name: value for fact in facts for name, value in fact.environment.items()},
        user=next((fact.user for fact in facts if fact.user), None),
        processors=next((fact.processors for fact in facts if fact.processors), None),
        notice=next((fact.notice for fact in facts if fact.notice), None),
    )


class _HostNetwork:
    """The network of this machine: a container listens on its loopback."""

    def enter(self, name: str) -> list[str]:
        """Nothing comes before the command."""
        return []


class _Odd(Container):
    """A container that meets a fact."""

    fact: Fact

    def _setup(self, layers: Path) -> list[str]:
        *lines, last = super()._setup(layers)
        assert last.startswith("mount -o remount,ro"), last
        return [*lines, *self.fact.setup, last]


@contextmanager
def container(
    name: str, fact: Fact, folder: Path, command: tuple[str, ...], environment: Mapping[str, str]
) -> Iterator[Container]:
    """A container of a service of docker-compose.yml that has started, with other content.

    Args:
        name: of the service.
        fact: what it meets.
        folder: for volumes and logs; what lies in ``volumes/data`` is the data volume.
        command: in place of the service's.
        environment: in place of the service's.
    """
    service = read(ROOT / "docker-compose.yml", {}).services[name]
    service = service.model_copy(
        update={
            "command": command,
            "environment": {**environment, **fact.environment},
            "volumes": (Mount(type="volume", source="data", target="/data"),),
            "secrets": (),
        }
    )
    image = images.of(service, {})
    image = replace(image, entrypoint=fact.entrypoint, user=fact.user or image.user)
    made = _Odd(f"fact-{name}", service, image, folder, folder, {}, _HostNetwork())  # type: ignore[arg-type]
    made.fact = fact
    made.start()
    try:
        yield made
    finally:
        made.stop()
        made.remove()
