"""The one parser of docker-compose.yml. What it does not know is an error, never ignored."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:\?|:-)([^}]*))?\})")

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]


class CompositionError(Exception):
    """The file says something that is not understood, or a variable that it needs is not set."""


def seconds(text: str) -> float:
    """``1m30s`` as 90.

    Raises:
        ValueError: it is no duration.
    """
    if not re.fullmatch(r"(\d+(us|ms|s|m|h))+", text):
        raise ValueError(f"{text!r} is no duration, as 1m30s is one")
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(us|ms|s|m|h)", text))


def size(text: str) -> int:
    """``2g`` in bytes.

    Raises:
        ValueError: it is no size.
    """
    if not re.fullmatch(r"\d+[bkmg]", text):
        raise ValueError(f"{text!r} is no size, as 2g is one")
    return int(text[:-1]) * _SIZES[text[-1]]


Seconds = Annotated[float, BeforeValidator(seconds)]
Bytes = Annotated[int, BeforeValidator(size)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Healthcheck(_Part):
    """When a service is healthy: ``test`` ends with 0, tried every ``interval``."""

    test: tuple[str, ...]
    interval: Seconds = 30
    timeout: Seconds = 30
    retries: int = 3
    start_period: Seconds = 0
    start_interval: Seconds = 5

    @property
    def command(self) -> tuple[str, ...]:
        """What runs in the container."""
        kind, *command = self.test
        if kind != "CMD":
            raise CompositionError(f"a health check of the kind {kind} is not understood, only CMD")
        return tuple(command)


class Dependency(_Part):
    """What must hold of another service before this one starts."""

    condition: Condition


class Subpath(_Part):
    """A folder of a volume, which must exist."""

    subpath: str = ""


class Mount(_Part):
    """A named volume, or a file or folder of the host, in a container."""

    type: Literal["volume", "bind"]
    source: str
    target: str
    read_only: bool = False
    volume: Subpath = Subpath()


def _mount(entry: Any) -> Any:
    """The short form, ``source:target[:ro]``, as the long one."""
    if not isinstance(entry, str):
        return entry
    found = re.fullmatch(r"([^:]+):(/[^:]*)(:ro)?", entry)
    if not found:
        raise ValueError(f"{entry!r} is not source:target or source:target:ro")
    kind = "bind" if found[1].startswith(("/", ".")) else "volume"
    return {"type": kind, "source": found[1], "target": found[2], "read_only": bool(found[3])}


class Build(_Part):
    """Which stage of the Dockerfile makes the image."""

    context: str
    target: str


class Service(_Part):
    """A service, with the keys of the Compose specification that the file uses."""

    image: str
    build: Build | None = None
    command: tuple[str, ...] = ()
    user: str | None = None
    environment: dict[str, str | None] = Field(default_factory=dict)
    volumes: tuple[Annotated[Mount, BeforeValidator(_mount)], ...] = ()
    tmpfs: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    depends_on: dict[str, Dependency] = Field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    restart: Literal["no", "unless-stopped"] = "no"
    stop_grace_period: Seconds = 10
    init: bool = False
    read_only: bool = False
    cap_drop: tuple[Literal["ALL"], ...] = ()
    security_opt: tuple[Literal["no-new-privileges:true"], ...] = ()
    mem_limit: Bytes | None = None
    pids_limit: int | None = None
    # Not applied: on a machine with other work, a group would weigh as much as one process of it.
    cpu_shares: int | None = None


class Secret(_Part):
    """A file of the host that is ``/run/secrets/NAME`` in the containers that name it."""

    file: str


class Composition(_Part):
    """What docker-compose.yml describes."""

    name: str
    services: dict[str, Service]
    volumes: dict[str, None] = Field(default_factory=dict)
    secrets: dict[str, Secret] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _everything_named_exists(self) -> Self:
        for name, service in self.services.items():
            named = {mount.source for mount in service.volumes if mount.type == "volume"}
            for kind, used, known in (
                ("service", set(service.depends_on), set(self.services)),
                ("volume", named, set(self.volumes)),
                ("secret", set(service.secrets), set(self.secrets)),
            ):
                if missing := sorted(used - known):
                    raise ValueError(f"{name} names the {kind} {missing[0]}, which does not exist")
            for other, dependency in service.depends_on.items():
                health = self.services[other].healthcheck
                if dependency.condition == "service_healthy" and health is None:
                    raise ValueError(f"{name} waits for the health of {other}, which has no check")
        return self

    def patient(self, factor: float) -> Self:
        """The same for a machine that is so many times slower or busier.

        Checks are as frequent, but may take and fail longer.
        """
        services = {}
        for name, service in self.services.items():
            check = service.healthcheck
            if check is not None:
                check = check.model_copy(
                    update={
                        "timeout": factor * check.timeout,
                        "start_period": factor * check.start_period,
                        "retries": math.ceil(factor * check.retries),
                    }
                )
            grace = factor * service.stop_grace_period
            services[name] = service.model_copy(
                update={"healthcheck": check, "stop_grace_period": grace}
            )
        return self.model_copy(update={"services": services})


def read(path: Path, environment: Mapping[str, str]) -> Composition:
    """Read a file, with its variables replaced.

    Args:
        path: of docker-compose.yml.
        environment: what the variables are replaced with. An entry of ``environment:`` without a
            value is taken from it, too, and left out where it is not set.

    Raises:
        CompositionError: a key or value is not understood, something named does not exist, or a
            variable that has no default is not set.
    """
    content = {
        key: value
        for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items()
        if not key.startswith("x-")
    }
    content = _interpolated(content, environment)
    for service in content["services"].values():
        given = service.get("environment", {})
        service["environment"] = {
            key: environment.get(key) if value is None else value
            for key, value in given.items()
            if value is not None or key in environment
        }
    try:
        return Composition.model_validate(content)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc'])) or 'services'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise CompositionError(f"{path}: {'; '.join(problems)}") from None


def _interpolated(node: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(value, environment) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, environment) for value in node]
    if not isinstance(node, str):
        return node

    def replaced(found: re.Match[str]) -> str:
        dollar, name, operator, word = found.groups()
        if dollar:
            return "$"
        value = environment.get(name, "")
        if value or operator is None:
            return value
        if operator == ":?":
            raise CompositionError(f"{name} {word}")
        return str(word)

    return _VARIABLE.sub(replaced, node)
