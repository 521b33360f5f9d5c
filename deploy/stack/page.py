"""The commands of docs/deploy.md on backups and upgrades, run by the stack as they stand there."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from deploy.stack.images import CHECKOUT
from deploy.stack.supervisor import Supervisor

_TITLE = "### Upgrades and backups"


class PageError(Exception):
    """The page has another command than the stack can run."""


def blocks() -> tuple[list[str], list[str], list[str]]:
    """The commands that back up, those that upgrade, and those that restore.

    Raises:
        PageError: the page has other blocks than these three.
    """
    page = (CHECKOUT / "docs" / "deploy.md").read_text(encoding="utf-8")
    section = page.partition(f"\n{_TITLE}\n")[2].partition("\n### ")[0]
    found = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)]
    if len(found) != 3:
        raise PageError(f"docs/deploy.md, {_TITLE[4:]}: {len(found)} blocks of commands, not 3")
    back_up, upgrade, restore = found
    return back_up, upgrade, restore


class Compose:
    """``docker compose`` as far as the page uses it, for the services of a supervisor.

    Args:
        supervisor: of all services.
        folder: in which commands find and leave files.
        patience: how many times longer than on an idle machine a command may take.
    """

    def __init__(self, supervisor: Supervisor, folder: Path, patience: float) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._seconds = 120 * patience
        self._starting_seconds = 600 * patience

    def follow(self, lines: Sequence[str]) -> None:
        """Run lines of a shell.

        Raises:
            AssertionError: a command fails, or a service has to be killed.
            PageError: a command is not understood.
            Unhealthy: a service does not become healthy.
        """
        for line in lines:
            for command in line.split(" && "):
                self._run(command)

    def _run(self, text: str) -> None:
        containers = {name: one.container for name, one in self._supervisor.services.items()}
        match shlex.split(text):
            case ["docker", "compose", "build"]:
                return  # the checkout, or images that have been built
            case ["docker", "compose", "stop"]:
                killed = self._supervisor.stop()
                assert not killed, f"had to be killed: {killed}"
                return
            case ["docker", "compose", "up", "--wait", *names]:
                self._supervisor.start(self._starting_seconds, *names)
                return
            # Without --no-deps it would start all that the service depends on.
            case ["docker", "compose", "run", "--rm", "--no-deps", name, *command]:
                status, said = containers[name].once(command, self._seconds)
            case ["docker", "compose", "exec", "-T", name, *command, ("<" | ">") as way, file]:
                place = self._folder / file
                ends = {"source": place} if way == "<" else {"target": place}
                status, said = containers[name].run(command, self._seconds, **ends)
            case _:
                raise PageError(f"docs/deploy.md: {text} is not understood")
        assert status == 0, f"{text}: {said}"
