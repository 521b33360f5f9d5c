"""Environment, secrets, addresses and volumes that the services of docker-compose.yml share."""

import importlib
import re
import shlex
from importlib.util import find_spec
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
from composition import DAGSTER, ROOT, SERVICES, Services, listening_port, option

from cxr_assets.settings import Settings as PipelineSettings
from cxr_serving.http.settings import Settings as ServiceSettings

# What other projects document, by who reads it.
THIRD_PARTY = {
    "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB",  # the postgres image
    "PGPASSWORD",  # libpq
    "MLFLOW_BACKEND_STORE_URI", "MLFLOW_DISABLE_TELEMETRY",  # MLflow
    "HF_TOKEN", "HF_ENDPOINT",  # huggingface_hub
    "KAGGLE_USERNAME", "KAGGLE_KEY",  # kagglehub
}  # fmt: skip

OPENTELEMETRY = set(vars(importlib.import_module("opentelemetry.sdk.environment_variables")))


def environment_names(settings: type[PipelineSettings] | type[ServiceSettings]) -> set[str]:
    return {f"CXR_{name}".upper() for name in settings.model_fields}


def environment_of_deployment_files() -> set[str]:
    text = "".join(path.read_text() for path in (ROOT / "deploy").glob("*.yaml"))
    return set(re.findall(r"\{env: (\w+)\}", text))


@pytest.mark.parametrize("name", SERVICES)
def test_environment_names_are_read_by_something(name: str, services: Services) -> None:
    known = environment_of_deployment_files() | THIRD_PARTY
    if name == "serving":
        known = environment_names(ServiceSettings) | OPENTELEMETRY
    elif name == "grafana":
        known = {key for key in services[name]["environment"] if key.startswith("GF_")}
    elif name == "code-location":
        known |= environment_names(PipelineSettings)
    assert set(services[name].get("environment", {})) - known == set()


@pytest.mark.parametrize("name", DAGSTER)
def test_deployment_files_find_their_environment(name: str, services: Services) -> None:
    environment = services[name]["environment"]
    assert environment_of_deployment_files() <= {
        key for key, value in environment.items() if value is not None
    }


def test_every_setting_of_the_pipeline_can_be_set(
    services: Services, stages: dict[str, list[tuple[str, str]]]
) -> None:
    fixed = {
        pair.partition("=")[0]
        for instruction, arguments in stages["pipeline"]
        if instruction == "ENV"
        for pair in shlex.split(arguments)
    }
    given = fixed | set(services["code-location"]["environment"])
    assert environment_names(PipelineSettings) <= given


def test_every_setting_of_the_service_can_be_set(services: Services) -> None:
    given = set(services["serving"]["environment"])
    # Its image has no torch, without which there is only the CPU.
    assert environment_names(ServiceSettings) - given == {"CXR_DEVICE"}


def test_fixed_settings_are_valid(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in (("code-location", PipelineSettings), ("serving", ServiceSettings)):
        for key, value in services[name]["environment"].items():
            if key.startswith("CXR_") and value is not None:
                monkeypatch.setenv(key, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
        settings()


def test_the_service_follows_releases_unless_another_choice_is_made(services: Services) -> None:
    assert services["serving"]["environment"]["CXR_FOLLOW"] == "${CXR_FOLLOW:-released}"


def test_secrets_come_from_outside(services: Services) -> None:
    values = {
        (name, key): value
        for name, service in services.items()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|TOKEN|KEY|NOTIFY", key)
    }
    assert ("postgres", "POSTGRES_PASSWORD") in values
    assert {
        place: value
        for place, value in values.items()
        if value is not None and not re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", value)
    } == {}


def test_password_is_the_only_variable_without_a_default_and_is_required() -> None:
    every = re.findall(r"\$\{([^}]*)\}", (ROOT / "docker-compose.yml").read_text())
    variables = [variable for variable in every if ":-" not in variable]
    assert variables
    assert {variable.partition(":?")[0] for variable in variables} == {"POSTGRES_PASSWORD"}
    assert all(":?" in variable for variable in variables)


def test_dagster_connects_to_the_database_that_postgres_makes(services: Services) -> None:
    ours, theirs = services["webserver"]["environment"], services["postgres"]["environment"]
    assert ours["POSTGRES_HOST"] in services
    assert ours["POSTGRES_PORT"] == "5432"
    for key in ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"):
        assert ours[key] == theirs[key]
    check = services["postgres"]["healthcheck"]["test"]
    assert check[check.index("--username") + 1] == theirs["POSTGRES_USER"]
    assert check[check.index("--dbname") + 1] == theirs["POSTGRES_DB"]


def test_mlflow_connects_to_the_database_that_postgres_makes(services: Services) -> None:
    url = urlsplit(services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"])
    _, driver = url.scheme.split("+")
    assert find_spec(driver) is not None
    assert url.hostname in services
    assert url.port == 5432
    assert url.username == services["postgres"]["environment"]["POSTGRES_USER"]
    assert url.password is None
    database = url.path.removeprefix("/")
    assert f"CREATE DATABASE {database};" in (ROOT / "deploy" / "mlflow.sql").read_text()
    assert (
        "./deploy/mlflow.sql:/docker-entrypoint-initdb.d/mlflow.sql:ro"
        in (services["postgres"]["volumes"])
    )


def test_training_reaches_mlflow(services: Services) -> None:
    url = urlsplit(services["code-location"]["environment"]["CXR_MLFLOW_URI"])
    assert url.hostname == "mlflow"
    assert url.port == listening_port(services["mlflow"])
    assert url.netloc in option(services["mlflow"], "allowed-hosts").split(",")


def test_service_reads_what_training_writes(services: Services) -> None:
    assert services["code-location"]["volumes"] == [
        "data:/data",
        "./images:/images:ro",
        "./notify:/notify:ro",
    ]
    assert "data:/data:ro" in services["serving"]["volumes"]
    assert services["serving"]["environment"]["CXR_DATA_ROOT"] == "/data"


def test_runs_and_webserver_share_the_storage(services: Services) -> None:
    storage = PurePosixPath(services["webserver"]["environment"]["DAGSTER_STORAGE_DIR"])
    assert storage.is_relative_to("/data")
    assert services["webserver"]["volumes"] == ["data:/data"]


def test_mlflow_keeps_its_artifacts_on_a_volume(services: Services) -> None:
    [mount] = services["mlflow"]["volumes"]
    directory = mount.split(":")[1]
    assert PurePosixPath(option(services["mlflow"], "artifacts-destination")).is_relative_to(
        directory
    )
