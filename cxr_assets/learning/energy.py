"""Energy used by a training, if the machine measures it.

``codecarbon`` reads the same counters, estimates from the processor's thermal design power where it
cannot, and brings eight more packages: too much for one number that is measured or absent.
"""

import logging
from functools import cache
from pathlib import Path

# RAPL: Linux exposes the energy counters of Intel and AMD processors here, often to root only:
# https://docs.kernel.org/power/powercap/powercap.html
COUNTERS = Path("/sys/class/powercap")

_log = logging.getLogger(__name__)


class Meter:
    """Measures the energy of the machine's processor packages since it was created.

    Memory, accelerators and everything else are not included. A counter wraps around every few
    hundred kilojoules; read it before it has wrapped twice.
    """

    def __init__(self) -> None:
        self._microjoules = 0
        self._last = _read()

    def joules(self) -> float | None:
        """Joules so far; None without a readable counter."""
        now = _read()
        if now.keys() != self._last.keys() or not now:
            return None
        for zone, (count, end) in now.items():
            self._microjoules += (count - self._last[zone][0]) % end
        self._last = now
        return self._microjoules / 1e6


def _read() -> dict[str, tuple[int, int]]:
    """Count and maximum count of each package, in microjoules; empty if one is not readable.

    Most virtual machines have no counters, and most other machines show them to root only. Other
    problems, such as dangling links in a container, are logged once.
    """
    counts = {}
    try:
        for zone in COUNTERS.glob("intel-rapl:*"):
            if (zone / "name").read_text(encoding="utf-8").startswith("package"):
                count, end = (
                    int((zone / name).read_text(encoding="utf-8"))
                    for name in ("energy_uj", "max_energy_range_uj")
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
    _log.warning("the energy of trainings is not measured: %s", why)
