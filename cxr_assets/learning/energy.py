"""The energy that a training takes, where the machine tells it."""

from pathlib import Path

# RAPL, by which Linux shows what processors of Intel and AMD count, often to root alone:
# https://docs.kernel.org/power/powercap/powercap.html
COUNTERS = Path("/sys/class/powercap")


class Meter:
    """Counts the energy of the machine's processor packages from when it is made.

    Memory, accelerators and all else are left out. A counter starts anew every few hundred
    kilojoules; one is to be read before it has done so twice.
    """

    def __init__(self) -> None:
        self._microjoules = 0
        self._last = _read()

    def joules(self) -> float | None:
        """Joules until now; None where there is no counter, or it may not be read."""
        now = _read()
        if now.keys() != self._last.keys() or not now:
            return None
        for zone, (count, end) in now.items():
            self._microjoules += (count - self._last[zone][0]) % end
        self._last = now
        return self._microjoules / 1e6


def _read() -> dict[str, tuple[int, int]]:
    """Count and largest count of each package, in microjoules; nothing where one is forbidden."""
    counts = {}
    try:
        for zone in COUNTERS.glob("intel-rapl:*"):
            if (zone / "name").read_text().startswith("package"):
                count = int((zone / "energy_uj").read_text())
                counts[zone.name] = count, int((zone / "max_energy_range_uj").read_text())
    except PermissionError:
        return {}
    return counts
