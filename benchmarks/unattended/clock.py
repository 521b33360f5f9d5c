"""A clock that skips what nobody waits for, and that the processes of the pipeline share."""

import time
from datetime import UTC, datetime
from pathlib import Path

from cxr_serving.model.atomic import write_file

# Of each simulated minute: Dagster's scheduler looks at the clock once a minute.
_LIVED_SECONDS = 10


class Clock:
    """Simulated time, which goes on by itself and is set forward.

    Of each simulated minute only the last ten seconds are lived, at their real speed, so that it
    passes in ten seconds.

    Args:
        file: where the processes read it.
        now: the beginning, in a whole minute.
    """

    def __init__(self, file: Path, now: datetime) -> None:
        self._file = file
        self.set(now)

    @property
    def environment(self) -> dict[str, str]:
        """For processes that live in simulated time."""
        return {
            "PYTHONPATH": str(Path(__file__).with_name("simulated")),
            "SIMULATED_CLOCK": str(self._file),
        }

    def set(self, now: datetime) -> None:
        """Go on from there, a whole minute."""
        self._set = (time.time(), now.timestamp())
        real, simulated = self._set
        write_file(self._file, f"{real!r} {simulated!r} {_LIVED_SECONDS}".encode())

    @property
    def now(self) -> datetime:
        """The simulated minute."""
        real, simulated = self._set
        minutes = (time.time() - real) // _LIVED_SECONDS
        return datetime.fromtimestamp(simulated + 60 * minutes, UTC)
