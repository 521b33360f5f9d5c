import ast
import importlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml
from composition import (
    MONITORING,
    OURS,
    ROOT,
    RUNNING,
    SERVICES,
    Service,
    Services,
    listening_port,
    option,
    parse,
)
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.webserver import DagsterWebserver
from starlette.testclient import TestClient

from cxr_serving.http.settings import Settings as ServiceSettings
from deploy.stack.composition import read

# Programs of images that are not built here.
UNIT = ROOT / "deploy" / "systemd" / "cxr-code-location.service"
PROGRAMS = {"postgres": "pg_isready", "prometheus": "wget", "grafana": "wget"}


def probed_url(service: Service) -> str:
    """The address in a health check."""
    [url] = re.findall(r"http://[^']+", service["healthcheck"]["test"][-1])
    assert isinstance(url, str)
    return url


def test_every_promised_service_is_there(services: Services) -> None:
    assert sorted(services) == sorted(SERVICES)


@pytest.mark.parametrize("name", OURS)
def test_command_is_one_that_its_program_understands(name: str, services: Services) -> None:
    program, *arguments = services[name]["command"]
    parse(program, arguments)


def test_parser_rejects_what_a_program_does_not_know() -> None:
    with pytest.raises(click.UsageError):
        parse("dagster", ["code-server", "start", "--hosts=0.0.0.0"])
    with pytest.raises(click.UsageError):
        parse("dagster", ["code-server", "begin"])
    with pytest.raises(click.UsageError):
        parse("mlflow", ["server", "--port=http"])


@pytest.mark.parametrize("name", RUNNING)
def test_health_check_runs_a_program_of_its_image(name: str, services: Services) -> None:
    kind, program, *arguments = services[name]["healthcheck"]["test"]
    assert kind == "CMD"
    if name in PROGRAMS:
        assert program == PROGRAMS[name]
    elif program == "python":
        flag, code = arguments
        assert flag == "-c"
        ast.parse(code)
    else:
        parse(program, arguments)


@pytest.mark.parametrize("name", ["webserver", "mlflow", "serving", *MONITORING])
def test_health_check_asks_the_port_that_the_service_listens_on(
    name: str, services: Services
) -> None:
    url = urlsplit(probed_url(services[name]))
    assert url.hostname == "127.0.0.1"
    assert url.port == listening_port(services[name])


def test_health_check_of_the_code_location_asks_its_port(services: Services) -> None:
    check = services["code-location"]["healthcheck"]["test"]
    assert int(check[-1]) == listening_port(services["code-location"])


def test_webserver_has_the_probed_path(services: Services, tmp_path: Path) -> None:
    path = urlsplit(probed_url(services["webserver"])).path
    with (
        DagsterInstance.local_temp(str(tmp_path)) as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
        TestClient(DagsterWebserver(context).create_asgi_app()) as client,
    ):
        answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


def test_mlflow_has_the_probed_path(services: Services) -> None:
    app = importlib.import_module("mlflow.server").app
    assert app.test_client().get(urlsplit(probed_url(services["mlflow"])).path).status_code == 200


def test_service_has_the_probed_path(services: Services) -> None:
    app = importlib.import_module("cxr_serving.http.app").create_app(ServiceSettings())
    assert urlsplit(probed_url(services["serving"])).path in app.openapi()["paths"]


@pytest.mark.parametrize("name", ["webserver", "mlflow", "serving", *MONITORING])
def test_port_is_published_to_this_host_only(name: str, services: Services) -> None:
    [published] = services[name]["ports"]
    address, _, inside = published.split(":")
    assert address == "127.0.0.1"
    assert int(inside) == listening_port(services[name])


def test_nothing_else_is_published(services: Services) -> None:
    assert {name for name, service in services.items() if "ports" in service} == {
        "webserver",
        "mlflow",
        "serving",
        "prometheus",
        "grafana",
    }


def test_no_port_is_published_twice(services: Services) -> None:
    published = [
        port.split(":")[1] for service in services.values() for port in service.get("ports", [])
    ]
    assert len(published) == len(set(published))


@pytest.mark.parametrize("name", ["code-location", "webserver", "mlflow"])
def test_server_listens_beyond_its_own_container(name: str, services: Services) -> None:
    assert option(services[name], "host") == "0.0.0.0"


def test_service_listens_beyond_its_own_container(services: Services) -> None:
    assert services["serving"]["environment"]["CXR_HOST"] == "0.0.0.0"


def test_service_is_not_killed_while_it_drains(services: Services) -> None:
    settings = ServiceSettings()
    seconds = float(services["serving"]["stop_grace_period"].removesuffix("s"))
    assert seconds > settings.notice_seconds + settings.drain_seconds


def test_workspace_names_the_code_location(services: Services) -> None:
    [entry] = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())["load_from"]
    server = entry["grpc_server"]
    code_location = services["code-location"]
    assert server["port"] == listening_port(code_location)
    assert server["location_name"] == option(code_location, "location-name")
    assert find_spec(option(code_location, "module-name")) is not None
    for name in ("webserver", "daemon"):
        assert services[name]["environment"][server["host"]["env"]] == "code-location"


@pytest.mark.parametrize("name", ["webserver", "daemon"])
def test_workspace_file_is_in_the_image(
    name: str, services: Services, stages: dict[str, list[tuple[str, str]]]
) -> None:
    copied = [arguments for instruction, arguments in stages["pipeline"] if instruction == "COPY"]
    directories = [arguments for kind, arguments in stages["pipeline"] if kind == "WORKDIR"]
    file = option(services[name], "workspace")
    assert any(
        f"deploy/{file}" in sources.split() and sources.split()[-1].rstrip("/") == directories[-1]
        for sources in copied
    )


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_exist_and_can_become_healthy(name: str, services: Services) -> None:
    for other, terms in services[name].get("depends_on", {}).items():
        assert other in services
        ends = services[other]["restart"] == "no"
        condition = "service_completed_successfully" if ends else "service_healthy"
        assert terms == {"condition": condition}
        assert ends or "healthcheck" in services[other]


def test_volumes_are_declared_and_files_exist(compose: dict[str, Any]) -> None:
    used = set()
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount["source"] if isinstance(mount, dict) else mount.split(":")[0]
            if source in ("./keys", "./images", "./secrets/pipeline"):
                # Made by whoever has keys, images or addresses, and never committed.
                folder = source.split("/")[1]
                assert f"/{folder}/" in (ROOT / ".gitignore").read_text().splitlines()
            elif source.startswith("."):
                assert (ROOT / source).is_file()
            else:
                used.add(source)
    assert used == set(compose["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_image_is_built_from_a_stage_that_exists(
    name: str, services: Services, stages: dict[str, list[tuple[str, str]]]
) -> None:
    build = services[name]["build"]
    assert build == {"context": ".", "target": services[name]["image"].removeprefix("cxr-")}
    assert build["target"] in stages


@pytest.mark.parametrize("name", SERVICES)
def test_container_gives_up_its_privileges(name: str, services: Services) -> None:
    assert services[name]["cap_drop"] == ["ALL"]
    assert services[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_container_takes_no_more_than_its_share(name: str, services: Services) -> None:
    assert services[name]["pids_limit"] == 1000
    assert "mem_limit" in services[name]


def test_a_training_starves_nobody() -> None:
    services = read(ROOT / "docker-compose.yml", {}).services
    docker = 1024
    shares = {name: service.cpu_shares or docker for name, service in services.items()}
    assert 4 * shares.pop("code-location") <= min(shares.values())
    # As on Kubernetes, where each fit has a pod of its own.
    [fit] = re.findall(
        r"convnext_model_fit:.*?limits: \{memory: (\d+)Gi",
        (ROOT / "deploy" / "k8s" / "dagster.yaml").read_text(), re.DOTALL,
    )  # fmt: skip
    assert services["code-location"].mem_limit == int(fit) * 2**30
    services = read(ROOT / "docker-compose.yml", {"TRAINING_MEMORY": "32g"}).services
    assert services["code-location"].mem_limit == 32 * 2**30


@pytest.mark.parametrize("name", SERVICES)
def test_image_that_is_not_built_here_has_an_exact_version(name: str, services: Services) -> None:
    if "build" not in services[name]:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+(\.\d+)?", services[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_runs_as_root(name: str, services: Services) -> None:
    # Of images that are built here, and of those of Prometheus and Grafana, root is not the user.
    assert services[name].get("user") == ("postgres" if name == "postgres" else None)


@pytest.mark.parametrize("name", RUNNING)
def test_container_comes_back(name: str, services: Services) -> None:
    assert services[name]["restart"] == "unless-stopped"


def test_a_training_has_time_to_write_its_checkpoint(services: Services) -> None:
    [unit] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    code_location = services["code-location"]
    assert code_location["stop_grace_period"] == f"{int(unit) // 60}m"
    # Both send SIGTERM to all processes, not to the code server alone.
    assert code_location["init"] is True
    assert code_location["environment"]["TINI_KILL_PROCESS_GROUP"] == "1"
    assert "\nKillMode=control-group\n" in UNIT.read_text()


def test_the_largest_requests_that_are_accepted_at_once_fit_into_memory(services: Services) -> None:
    settings = ServiceSettings()
    needed = settings.max_queue * settings.max_upload_bytes
    kubernetes = (ROOT / "deploy" / "k8s" / "serving.yaml").read_text()
    systemd = (ROOT / "deploy" / "systemd" / "cxr-serving.service").read_text()
    limits = [
        services["serving"]["mem_limit"].removesuffix("g"),
        *re.findall(r"limits: \{memory: (\d+)Gi\}", kubernetes),
        *re.findall(r"^MemoryMax=(\d+)G$", systemd, re.MULTILINE),
    ]
    # One more for the model and the images that are being decoded.
    assert [2**30 * (int(limit) - 1) > needed for limit in limits] == [True] * 3


@pytest.mark.parametrize("name", SERVICES)
def test_container_writes_to_its_volumes_alone(name: str, services: Services) -> None:
    assert services[name]["read_only"] is True
