"""The energy that a training takes, where the machine tells it."""

import logging
from functools import cache
from pathlib import Path

# RAPL, by which Linux shows what processors of Intel and AMD count, often to root alone:
# https://docs.kernel.org/power/powercap/powercap.html
COUNTERS = Path("/sys/class/powercap")

_log = logging.getLogger(__name__)


class Meter:
    """Counts the energy of the machine's processor packages from when it is made.

    Memory, accelerators and all else are left out. A counter starts anew every few hundred
    kilojoules; one is to be read before it has done so twice.
    """

    def __init__(self) -> None:
        self._microjoules = 0
        self._last = _read()

    def joules(self) -> float | None:
        """Joules until now; None where there is no counter, or it cannot be read."""
        now = _read()
        if now.keys() != self._last.keys() or not now:
            return None
        for zone, (count, end) in now.items():
            self._microjoules += (count - self._last[zone][0]) % end
        self._last = now
        return self._microjoules / 1e6


def _read() -> dict[str, tuple[int, int]]:
    """Count and largest count of each package, in microjoules; nothing where one is not readable.

    Counters are absent in most virtual machines, and kept to root in most others. In a container
    they may be links to nowhere; what else is wrong with them is logged, once.
    """
    counts = {}
    try:
        for zone in COUNTERS.glob("intel-rapl:*"):
            if (zone / "name").read_text().startswith("package"):
                count, end = (
                    int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")
                )
                if not 0 <= count <= end or end == 0:
                    raise ValueError(f"{zone} counts {count} of {end} microjoules")
                counts[zone.name] = count, end
    except PermissionError:
        return {}
    except (OSError, ValueError) as error:
        _warn(str(error))
        return {}
    return counts


@cache
def _warn(why: str) -> None:
    _log.warning("the energy of trainings is not counted: %s", why)
