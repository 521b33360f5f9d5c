"""The service is killed while it loads another model."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.stack.client import Stack

_POLL_SECONDS = 0.01


class Swaps:
    """Swaps of the released model, which a person promotes.

    Args:
        stack: whose service serves a release, of which there are several.
        releases: their folder, as it lies on this machine.
        chance: of the moments.
    """

    def __init__(self, stack: Stack, releases: Path, chance: random.Random) -> None:
        self._stack = stack
        self._releases = releases
        self._chance = chance
        self._log = stack.containers["serving"].log

    def undisturbed(self) -> float:
        """Swap once, and kill nothing; the seconds that loading took."""
        self._forget()
        with self._promoting() as (start, version):
            loading = self._until_logged("loading", version, start)
            seconds = self._until_logged("serving", version, start) - loading
        self._forget()
        return seconds

    def killed(self, usual: float) -> bool:
        """Kill the service at a random moment of a load, and see the new model serve all the same.

        Args:
            usual: seconds that loading takes.

        Returns:
            Whether the kill came before the model served.

        Raises:
            TimeoutError: the new model does not serve.
        """
        hit = []
        with self._promoting() as (start, version):
            self._until_logged("loading", version, start)
            time.sleep(self._chance.uniform(0, usual))
            self._stack.kill(
                "serving", lambda: hit.append(not self._logged("serving", version, start))
            )
        self._stack.until(lambda: self._stack.model() == version, 120, "the new model serves")
        return hit[0]

    def _forget(self) -> None:
        """The model that served before stays in memory, and would not be loaded again."""
        self._stack.kill("serving")
        self._stack.until(lambda: self._stack.model() is not None, 120, "a model serves")

    @contextmanager
    def _promoting(self) -> Iterator[tuple[int, str]]:
        """Promote a release that does not serve; how long the log was before, and its version.

        Meanwhile, because the command ends when the service may have loaded the model long ago.
        """
        serves, start = self._stack.model(), self._log.stat().st_size
        other = next(
            path.name
            for path in sorted(self._releases.iterdir())
            if path.is_dir() and path.name[0] != "." and path.name != serves
        )
        with ThreadPoolExecutor(1) as pool:
            promoting = pool.submit(
                self._stack.containers["code-location"].run,
                ["cxr", "release", "promote", other, "--because", "a rehearsal"],
                120 * self._stack.patience,
            )
            yield start, other
            status, said = promoting.result()
        assert status == 0, said

    def _until_logged(self, message: str, version: str, start: int) -> float:
        """When the service has logged it, of the monotonic clock."""
        deadline = time.monotonic() + 60 * self._stack.patience
        while not self._logged(message, version, start):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service does not log {message!r} of {version}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic()

    def _logged(self, message: str, version: str, start: int) -> bool:
        with self._log.open("rb") as log:
            log.seek(start)
            for line in log:
                with suppress(json.JSONDecodeError):  # not written to its end yet
                    record = json.loads(line)
                    if (record.get("message"), record.get("version")) == (message, version):
                        return True
        return False
