"""What docs/deploy.md says of backups and upgrades, done to the running stack."""

from collections.abc import Mapping

from deploy.stack.container import Container

# A table of each database that a retraining has written to.
_TABLES = {"dagster": "event_logs", "mlflow": "metrics"}
# As docker-compose.yml says to the server.
_MLFLOW_STORE = "postgresql+psycopg2://cxr@postgres:5432/mlflow"


def back_up_and_restore(containers: Mapping[str, Container], seconds: float) -> dict[str, int]:
    """Dump both databases and restore them into new ones.

    Args:
        containers: of the stack, by name.
        seconds: most for a command.

    Returns:
        Rows of one table of each database.

    Raises:
        AssertionError: a command fails, or a table is empty or has fewer rows than before.
    """

    def run(*command: str) -> str:
        status, said = containers["postgres"].run([*command, "--username=cxr"], seconds)
        assert status == 0, said
        return said

    found = {}
    for database, table in _TABLES.items():
        query = ("psql", "--tuples-only", "--no-psqlrc", f"--command=SELECT count(*) FROM {table}")
        file, copy = f"/tmp/{database}.dump", f"restored_{database}"
        before = int(run(*query, f"--dbname={database}"))
        run("pg_dump", "--format=custom", f"--file={file}", database)
        run("createdb", copy)
        run("pg_restore", "--clean", "--if-exists", "--exit-on-error", f"--dbname={copy}", file)
        found[database] = int(run(*query, f"--dbname={copy}"))
        # The services go on, and write into the tables.
        assert found[database] >= before > 0, (database, before, found)
        run("dropdb", copy)
    return found


def migrate(containers: Mapping[str, Container], seconds: float) -> None:
    """Bring both schemas to the versions of the installed packages.

    Args:
        containers: of the stack, by name.
        seconds: most for a command.

    Raises:
        AssertionError: a command fails.
    """
    for name, command in (
        ("webserver", ["dagster", "instance", "migrate"]),
        ("mlflow", ["mlflow", "db", "upgrade", _MLFLOW_STORE]),
    ):
        status, said = containers[name].run(command, seconds)
        assert status == 0, said
