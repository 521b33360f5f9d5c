"""What the image of a service gives its containers.

Those that this project builds are described by the Dockerfile. Their files are a built image's root
or, without one, this machine with the checkout and its virtual environment. Postgres and Prometheus
are programs of Debian's packages, set up as the documentation of their images says.
"""

import pwd
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.stack.composition import Service

CHECKOUT = Path(__file__).parents[2]
BIN = CHECKOUT / ".venv" / "bin"
# What a container has without an image's say.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))


class ImageError(Exception):
    """There is nothing on this machine that stands for an image."""


@dataclass(frozen=True)
class Image:
    """An image, as much of it as its containers notice.

    Attributes:
        user: name and ids of who runs in it, and the home directory.
        root: of its files.
        environment: of every process.
        directory: in which commands run.
        entrypoint: before the command.
        folders: that belong to the user, and so do new volumes which are mounted there.
        files: of this machine, by their place in the container.
        stop_signal: asks the service to end.
    """

    user: tuple[str, int, int, str]
    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    entrypoint: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    stop_signal: str = "TERM"


def of(service: Service, roots: Mapping[str, Path]) -> Image:
    """The image of a service.

    Args:
        service: of docker-compose.yml.
        roots: of built images, by the name of their stage in the Dockerfile.

    Raises:
        ImageError: there is none.
    """
    image = _image(service, roots)
    if service.user not in (None, image.user[0]):
        raise ImageError(f"{service.image} has no user {service.user} here")
    return image


def _image(service: Service, roots: Mapping[str, Path]) -> Image:
    if service.build is not None:
        return _built(service.build.target, roots.get(service.build.target))
    name = service.image.partition(":")[0]
    if name == "postgres" and (_POSTGRES / "initdb").exists():
        user = pwd.getpwnam("postgres")
        return Image(
            ("postgres", user.pw_uid, user.pw_gid, user.pw_dir),
            environment={
                "PATH": f"{_POSTGRES}:{_PATH}", "PGDATA": "/var/lib/postgresql/data",
            },
            entrypoint=("sh", str(Path(__file__).with_name("postgres.sh"))),
            folders=("/var/lib/postgresql/data", "/var/run/postgresql"),
            stop_signal="INT",
        )  # fmt: skip
    if name == "prom/prometheus" and Path("/usr/bin/prometheus").exists():
        return Image(
            ("nobody", 65534, 65534, "/home"),
            environment={"PATH": _PATH},
            directory="/prometheus",
            entrypoint=("prometheus",),
            folders=("/prometheus",),
        )
    raise ImageError(f"nothing on this machine stands for the image {service.image}")


def _built(stage: str, root: Path | None) -> Image:
    environment = {"PATH": _PATH}
    directory = "/"
    files: dict[str, Path] = {}
    for instruction, arguments in stages()[stage]:
        if instruction == "ENV":
            for pair in shlex.split(arguments):
                name, _, value = pair.partition("=")
                environment[name] = value.replace("$PATH", environment["PATH"])
        elif instruction == "WORKDIR":
            directory = arguments
        elif instruction == "COPY" and "--from=" not in arguments:
            *sources, target = [part for part in arguments.split() if part[:2] != "--"]
            files |= {f"{target.rstrip('/')}/{Path(one).name}": CHECKOUT / one for one in sources}
    user = ("cxr", 1000, 1000, "/home/cxr")
    if root is None:
        environment["PATH"] = f"{BIN}:{environment['PATH']}"
        return Image(user, Path("/"), environment, directory, (), ("/data", directory), files)
    return Image(user, root, environment, directory, (), ("/data",), {})


def stages() -> dict[str, list[tuple[str, str]]]:
    """(instruction, arguments) of each stage of the Dockerfile, after those of its parent."""
    text = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            parent, _, stage = arguments.partition(" AS ")
            current = found[stage] = list(found.get(parent, []))
        current.append((instruction, arguments.strip()))
    return found
