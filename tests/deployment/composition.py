"""Names and parts of docker-compose.yml that several tests need."""

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

import cxr

ROOT = Path(__file__).parents[2]
OURS = ["code-location", "webserver", "daemon", "mlflow", "serving"]
MONITORING = ["prometheus", "grafana"]
# `folders` ends before the service starts.
RUNNING = ["postgres", *OURS, *MONITORING]
SERVICES = [*RUNNING, "folders"]
DAGSTER = ["code-location", "webserver", "daemon"]
# Their default ports.
PORTS = {"prom/prometheus": 9090, "grafana/grafana": 3000}

Service = dict[str, Any]
Services = dict[str, Service]


def option(service: Service, name: str) -> str:
    """The value of ``--name=value`` in a service's command."""
    [value] = [
        part.removeprefix(f"--{name}=")
        for part in service["command"]
        if part.startswith(f"--{name}=")
    ]
    assert isinstance(value, str)
    return value


def listening_port(service: Service) -> int:
    if service.get("image", "").partition(":")[0] in PORTS:
        return PORTS[service["image"].partition(":")[0]]
    environment = service.get("environment", {})
    return int(environment["CXR_PORT"] if "CXR_PORT" in environment else option(service, "port"))


def parse(program: str, arguments: list[str]) -> None:
    """Let a console script's own command line parser read the arguments.

    Raises:
        click.UsageError: the program has no such command, option or type of value.
    """
    if program == "cxr":  # of Typer, which no longer builds on click's classes
        [name] = arguments
        assert name in [known.callback.__name__ for known in cxr.app.registered_commands]
        return
    script, *_ = entry_points(group="console_scripts", name=program)
    command: click.Command = importlib.import_module(script.module).cli
    context = None
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=program, parent=context)
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, f"{program} has no command {name}"
        command = found
    command.make_context(program, arguments, parent=context)
