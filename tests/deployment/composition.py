"""Names and parts of docker-compose.yml that several tests need."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OURS = ["code-location", "webserver", "daemon", "mlflow", "serving"]
MONITORING = ["prometheus", "grafana"]
SERVICES = ["postgres", *OURS, *MONITORING]
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
