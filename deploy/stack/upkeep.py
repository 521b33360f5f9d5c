"""What docs/deploy.md says of backups and upgrades, done to the running stack."""

import shutil
from pathlib import Path
from typing import Any

from deploy.stack import page
from deploy.stack.client import Stack
from deploy.stack.retraining import Phase
from deploy.stack.supervisor import Supervisor

# Of a Dagster whose runs had no backfills, and of an MLflow without workspaces. Both differ from
# today's schema in the tables that hold runs.
_AGE = {
    "webserver": """
import dagster_postgres.run_storage.run_storage as storage
from dagster import DagsterInstance
from dagster._core.storage.sql import run_alembic_downgrade
from dagster_postgres.utils import pg_alembic_config

with DagsterInstance.get() as instance, instance.run_storage.connect() as connection:
    run_alembic_downgrade(pg_alembic_config(storage.__file__), connection, "284a732df317")
""",
    "mlflow": """
import os

from alembic.command import downgrade
from mlflow.store.db.utils import _get_alembic_config

downgrade(_get_alembic_config(os.environ["MLFLOW_BACKEND_STORE_URI"]), "c8d9e0f1a2b3")
""",
}


class Upkeep:
    """Backup, restore and upgrade, by the commands of the page.

    Args:
        stack: which has started.
        supervisor: of its services.
        folder: of its volumes, and for the dumps.
    """

    def __init__(self, stack: Stack, supervisor: Supervisor, folder: Path) -> None:
        self._stack = stack
        self._supervisor = supervisor
        self._folder = folder
        self._compose = page.Compose(supervisor, folder, stack.patience)
        self._seconds = 120 * stack.patience

    def follow(self, run: str, phase: Phase) -> None:
        """Lose Postgres, then bring its schemas up from older ones; a run must be found each time.

        Args:
            run: of Dagster, which has ended.
            phase: measures one, by its name.

        Raises:
            AssertionError: a command fails, or something of the run is not there.
            TimeoutError: it is not there in time.
        """
        back_up, upgrade, restore = page.blocks()
        known = self._known(run)
        assert all(known), known
        with phase("Postgres is backed up, lost and restored; Dagster and MLflow have the run"):
            self._compose.follow(back_up)
            self._stop()
            shutil.rmtree(self._folder / "volumes" / "postgres")
            self._compose.follow(restore)
            self._finds(run, known)
        with phase("older schemas are upgraded; Dagster and MLflow have the run"):
            new = self._revisions()
            self._age()
            old = self._revisions()
            assert not set(old) & set(new), (old, new)
            *migrations, start = upgrade
            self._compose.follow(migrations)
            # MLflow would make tables that are missing when it starts, and migrate the others then.
            assert self._revisions() == new
            self._compose.follow([start])
            self._stack.report(f"from the revisions {', '.join(old)} to {', '.join(new)}")
            self._finds(run, known)

    def _known(self, run: str) -> tuple[Any, ...]:
        """What Dagster and MLflow say of a run."""
        stack = self._stack
        return stack.status(run), stack.events(run), stack.tracked(run), stack.metrics(run)

    def _finds(self, run: str, known: tuple[Any, ...]) -> None:
        self._stack.until(lambda: self._known(run) == known, 60, "the run is as it was")

    def _stop(self) -> None:
        killed = self._supervisor.stop()
        assert not killed, f"had to be killed: {killed}"

    def _age(self) -> None:
        """Take the schemas back to older revisions, with nothing but Postgres running."""
        self._stop()
        self._supervisor.start(self._seconds, "postgres")
        for name, code in _AGE.items():
            status, said = self._stack.containers[name].once(["python", "-c", code], self._seconds)
            assert status == 0, said

    def _revisions(self) -> list[str]:
        """Of the schemas of Dagster and MLflow."""
        found = []
        for database in ("dagster", "mlflow"):
            status, said = self._stack.containers["postgres"].run(
                ["psql", "--username=cxr", f"--dbname={database}", "--tuples-only", "--no-align",
                 "--command=SELECT version_num FROM alembic_version"], self._seconds,
            )  # fmt: skip
            assert status == 0, said
            found.append(said.strip())
        return found
