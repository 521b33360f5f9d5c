"""Environment, secrets, addresses and volumes that the services of docker-compose.yml share."""

import importlib
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
from composition import DAGSTER, ROOT, SERVICES, Services, listening_port, option

from cxr_assets.settings import Settings as PipelineSettings
from cxr_serving.http.settings import Settings as ServiceSettings
from cxr_serving.model.store import asset_directory, metrics_directory, releases_directory

DATA = Path("/data")

# What other projects document, by who reads it.
THIRD_PARTY = {
    "POSTGRES_USER", "POSTGRES_PASSWORD_FILE", "POSTGRES_DB",  # the postgres image
    "PGSERVICE", "PGSERVICEFILE",  # libpq
    "TINI_KILL_PROCESS_GROUP",  # tini, which is Docker's init
    "HF_TOKEN_PATH", "HF_ENDPOINT",  # huggingface_hub
    "KAGGLE_CONFIG_DIR",  # kagglehub
    "MLFLOW_BACKEND_STORE_URI", "MLFLOW_DISABLE_TELEMETRY",  # MLflow
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
}  # fmt: skip
# What a person gives in files: these names of an environment variable would show it to all who may
# inspect the container.
BY_FILE = {"CXR_NOTIFY_URLS"}

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
    # The data root is a volume, so there is no local copy of it; and there are no pods.
    missing = environment_names(PipelineSettings) - given
    assert missing == BY_FILE | {"CXR_CACHE", "CXR_STEP_PODS"}


def test_every_setting_of_the_service_can_be_set(services: Services) -> None:
    given = set(services["serving"]["environment"])
    # Its image has no torch, without which there is only the CPU.
    # And the data root is a volume, so there is no local copy of it. One replica shares no limit.
    absent = {"CXR_DEVICE", "CXR_CACHE", "CXR_RATE_LIMIT_STORAGE"}
    assert environment_names(ServiceSettings) - given == absent


def test_fixed_settings_are_valid(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in (("code-location", PipelineSettings), ("serving", ServiceSettings)):
        for key, value in services[name]["environment"].items():
            if key.startswith("CXR_") and value is not None:
                monkeypatch.setenv(key, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
        settings()


def test_the_service_follows_releases_unless_another_choice_is_made(services: Services) -> None:
    assert services["serving"]["environment"]["CXR_FOLLOW"] == "${CXR_FOLLOW:-released}"


SECRET = re.compile("PASSWORD|TOKEN|KEY|NOTIFY|SERVICEFILE|HEADERS")


def shown(services: Services) -> list[tuple[str, str]]:
    """Secrets that the environment of a service would show, not the place of their file.

    Without a value here, a variable has that of the shell: then its name alone can say it.
    """
    return [
        (name, key)
        for name, service in services.items()
        for key, value in service.get("environment", {}).items()
        if SECRET.search(key)
        and not (
            re.search("FILE$|_PATH$|_DIR$", key)
            and (value or "/keys/").startswith(("/run/secrets/", "/secrets/", "/keys/"))
        )
    ]


def test_secrets_are_files(services: Services) -> None:
    assert shown(services) == []
    for wrong in (
        {"OTEL_EXPORTER_OTLP_HEADERS": None},
        {"HF_TOKEN": "${HF_TOKEN:-}"},
        {"CXR_KEYS_FILE": "${CXR_KEYS:-}"},
    ):
        assert shown({"serving": {"environment": wrong}}) == [("serving", *wrong)]


def test_secrets_are_seen_by_those_who_need_them(
    compose: dict[str, Any], services: Services
) -> None:
    seen = {name: set(service.get("secrets", [])) for name, service in services.items()}
    assert seen.pop("postgres") == {"postgres_password"}
    for name in (*DAGSTER, "mlflow"):
        assert seen.pop(name) == {"postgres_service"}
        file = services[name]["environment"]["PGSERVICEFILE"]
        assert file == "/run/secrets/postgres_service"
    assert set().union(*seen.values()) == set()
    assert compose["secrets"] == {
        name: {"file": f"./secrets/{name}"} for name in ("postgres_password", "postgres_service")
    }


def test_the_password_is_made_once_and_closed_to_other_users(tmp_path: Path) -> None:
    command = ["sh", str(ROOT / "deploy" / "secrets.sh")]
    subprocess.run(command, cwd=tmp_path, check=True)
    folder = tmp_path / "secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    password = (folder / "postgres_password").read_text()
    assert re.fullmatch("[0-9a-f]{48}", password)
    assert f"\npassword={password}\n" in (folder / "postgres_service").read_text()
    # Containers have users of their own.
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o004
    assert subprocess.run(command, cwd=tmp_path, check=False, stderr=subprocess.DEVNULL).returncode
    assert (folder / "postgres_password").read_text() == password


def test_every_variable_has_a_default() -> None:
    every = re.findall(r"\$\{([^}]*)\}", (ROOT / "docker-compose.yml").read_text())
    assert every
    assert [variable for variable in every if ":-" not in variable] == []


def test_dagster_connects_to_the_database_that_postgres_makes(services: Services) -> None:
    ours, theirs = services["webserver"]["environment"], services["postgres"]["environment"]
    assert ours["POSTGRES_HOST"] in services
    assert ours["POSTGRES_PORT"] == "5432"
    for key in ("POSTGRES_USER", "POSTGRES_DB"):
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
        "./secrets/pipeline:/secrets:ro",
    ]
    assert services["serving"]["environment"]["CXR_DATA_ROOT"] == "/data"


def test_service_sees_models_releases_and_metrics_alone(services: Services) -> None:
    folders = {
        path.relative_to(DATA).parts[0]
        for path in (
            asset_directory(DATA, "convnext_model"),
            releases_directory(DATA),
            metrics_directory(DATA),
        )
    }
    mounts = [mount for mount in services["serving"]["volumes"] if isinstance(mount, dict)]
    assert {mount["volume"]["subpath"] for mount in mounts} == folders
    for mount in mounts:
        subpath = mount["volume"]["subpath"]
        assert mount == {
            "type": "volume",
            "source": "data",
            "target": f"/data/{subpath}",
            "read_only": True,
            "volume": {"subpath": subpath},
        }
    others = [mount for mount in services["serving"]["volumes"] if mount not in mounts]
    assert others == ["./keys:/keys:ro"]


def test_folders_of_the_service_exist_before_it_starts(services: Services) -> None:
    made = {PurePosixPath(path).name for path in services["folders"]["command"][2:]}
    mounts = [mount for mount in services["serving"]["volumes"] if isinstance(mount, dict)]
    assert made == {mount["volume"]["subpath"] for mount in mounts}
    assert services["folders"]["volumes"] == ["data:/data"]
    assert "folders" in services["serving"]["depends_on"]


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
