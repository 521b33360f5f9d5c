"""The commands of docs/deploy.md on backups and upgrades, with stand-ins for containers."""

from pathlib import Path
from typing import Any

import pytest
from composition import ROOT

from deploy.stack import page
from deploy.stack.composition import read


class Stand:
    """Services and their containers, which all do as they should and keep a note of it."""

    def __init__(self) -> None:
        self.did: list[str] = []
        described = read(ROOT / "docker-compose.yml", {})
        self.services = {name: self._service(name) for name in described.services}

    def _service(self, name: str) -> Any:
        note = self.did.append

        class Service:
            """Itself its container."""

            container: Any

            def once(self, command: list[str], seconds: float) -> tuple[int, str]:
                note(f"{name} alone: {' '.join(command)}")
                return 0, ""

            def run(self, command: list[str], seconds: float, **ends: Path) -> tuple[int, str]:
                [(end, file)] = ends.items()
                note(f"{name}: {' '.join(command)}, {end} {file}")
                return 0, ""

        service = Service()
        service.container = service
        return service

    def start(self, seconds: float, *names: str) -> None:
        self.did.append(f"start {' '.join(names) or 'all'}")

    def stop(self) -> list[str]:
        self.did.append("stop")
        return []


def follow(lines: list[str]) -> list[str]:
    """What comes of lines."""
    stand = Stand()
    page.Compose(stand, Path("/dumps"), 1).follow(lines)  # type: ignore[arg-type]
    return stand.did


def test_an_upgrade_waits_for_nothing_but_postgres() -> None:
    _, upgrade, _ = page.blocks()
    stopped, postgres, *migrations, everything = follow(upgrade)
    assert (stopped, postgres, everything) == ("stop", "start postgres", "start all")
    # A newer MLflow may reject an older schema, and the webserver waits for it.
    assert migrations == [
        "mlflow alone: mlflow db upgrade postgresql+psycopg2://cxr@postgres:5432/mlflow",
        "webserver alone: dagster instance migrate",
    ]


def test_what_is_backed_up_is_restored_before_anything_reads_it() -> None:
    back_up, _, restore = page.blocks()
    dumped = [line.partition(", target ")[2] for line in follow(back_up)]
    postgres, *restored, everything = follow(restore)
    assert (postgres, everything) == ("start postgres", "start all")
    assert [line.partition(", source ")[2] for line in restored] == dumped
    assert dumped == ["/dumps/dagster.dump", "/dumps/mlflow.dump"]


@pytest.mark.parametrize(
    "line",
    [
        # It would start Postgres, MLflow and the code location, and wait for their health.
        "docker compose run --rm webserver dagster instance migrate",
        "docker compose up",
        "docker compose exec postgres pg_dump --username cxr dagster",
        "rm dagster.dump",
    ],
)
def test_a_command_that_the_stack_cannot_follow_is_an_error(line: str) -> None:
    with pytest.raises(page.PageError, match="is not understood"):
        follow([line])
