import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg2
import pytest

ROOT = Path(__file__).parents[2]
PASSWORD = "p@ss/w:rd %41"


def postgres_program(name: str) -> str | None:
    found = shutil.which(name)
    if found is not None:
        return found
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(candidates[-1]) if candidates else None


def unprivileged_user() -> str | None:
    """The user that has to start Postgres, which rejects to run as root; None for this user."""
    return "postgres" if os.geteuid() == 0 else None


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Postgres server with the user and the database of docker-compose.yml."""
    initdb, postgres = postgres_program("initdb"), postgres_program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("no Postgres server is installed")
    user = unprivileged_user()
    if user is not None and user not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("Postgres does not run as root, and there is no user named postgres")
    directory = Path(subprocess.check_output(["mktemp", "-d"], text=True, user=user).strip())
    server = None
    try:
        password = directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        data = directory / "data"
        subprocess.run(
            [initdb, data, "--no-sync", "--username=cxr", "--auth=scram-sha-256",
             f"--pwfile={password}"],
            check=True, user=user, cwd=directory, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        with (tmp_path_factory.mktemp("postgres") / "log").open("w") as log:
            server = subprocess.Popen(
                [postgres, "-D", data, "-h", "127.0.0.1", "-p", str(free), "-k", directory],
                user=user, cwd=directory, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                connection = psycopg2.connect(
                    host="127.0.0.1", port=free, user="cxr", password=PASSWORD, dbname="postgres"
                )
                break
            except psycopg2.OperationalError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE dagster")
        connection.close()
        yield free
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
        shutil.rmtree(directory)


@pytest.fixture
def home(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME as in the image, in the environment that docker-compose.yml gives it."""
    for name, value in {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(port),
        "POSTGRES_USER": "cxr",
        "PGSERVICE": "cxr",
        "PGSERVICEFILE": str(tmp_path / "service"),
        "POSTGRES_DB": "dagster",
        "DAGSTER_STORAGE_DIR": str(tmp_path / "storage"),
    }.items():
        monkeypatch.setenv(name, value)
    # As deploy/secrets.sh writes it.
    (tmp_path / "service").write_text(f"[cxr]\npassword={PASSWORD}\n")
    directory = tmp_path / "home"
    directory.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", directory)
    return directory


@dg.asset
def image_count() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"images": 3})


def test_a_run_is_kept_in_postgres(home: Path, tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        result = dg.materialize([image_count], instance=instance)
        assert result.success
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.SUCCESS
        event = instance.get_latest_materialization_event(image_count.key)
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["images"].value == 3
        assert Path(instance.storage_directory()).is_relative_to(tmp_path / "storage")
    assert list(home.rglob("*.db")) == []
