"""A witness: a store that what it records does not wait for, and does not fail with."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from cxr_assets.learning.checkpoints import TrainingError
from cxr_assets.learning.recipe import Progress

# Seconds that the store is waited for before what it watches goes on without it. A fresh SQLite
# store takes a few of them on a busy machine.
LIMIT = 60.0


class TrackingError(TrainingError):
    """The tracking store does not take what it is given, and it is required."""


def masked(text: str) -> str:
    """``text`` without the user and password of the addresses in it."""
    return re.sub(r"//[^/\s@]+@", "//***@", text)


class Witness:
    """Passes records on to a store, in their order, in a thread of its own.

    An interrupt, which reaches the main thread alone, never cuts a write to the store short: that
    would leave an SQLite file locked.

    When the store is out of reach, records wait until :meth:`deliver` or :meth:`close`: each waits
    for the store once more, for ``LIMIT`` seconds at most.

    Args:
        name: of the store, for messages.
        reach: makes sure that the store is there, or raises. It is called before the first record,
            and whenever the store does not take one.
        report: called with a line when the store is lost, is back, or has missed something.
        required: whether a store that is out of reach is an error.
    """

    def __init__(
        self, name: str, reach: Callable[[], None], report: Progress, required: bool
    ) -> None:
        self._name = masked(name)
        self._reach = reach
        self._report = report
        self._required = required
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()
        self._lost: list[str] = []
        self._turn: Future[None] | None = None
        self._reached = False
        self._out = False

    def record(self, what: str, pass_on: Callable[[], None]) -> None:
        """Pass a record on, now or later.

        Args:
            what: it is, should it be lost.
            pass_on: to the store; called again when it raises and the store answers.

        Raises:
            TrackingError: the store does not take it, and it is required.
        """
        self._waiting.append((what, pass_on))
        if not self._out:
            self.reach()

    def reach(self) -> None:
        """Reach the store and pass on what waits.

        Raises:
            TrackingError: it is out of reach, and it is required.
        """
        was_out, self._out = self._out, False
        until = time.monotonic() + LIMIT
        try:
            while self._waiting or not self._reached:
                if self._turn is None or self._turn.done():
                    self._turn = self._start()
                self._turn.result(max(0.0, until - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - whatever the store has to say
            said = masked(str(error)).splitlines()
            why = said[0] if said else f"no answer in {LIMIT:.0f} s"
            if self._required:
                raise TrackingError(
                    f"{self._name} is out of reach ({why}). Start it, or train without it: "
                    "tracking.required=false"
                ) from None  # MLflow's own words may hold a password
            self._out = True
            self._report(
                f"{self._name} is still out of reach"
                if was_out
                else f"{self._name} is out of reach ({why}): continuing without it; "
                "it gets what it misses when the training ends, if it answers then"
            )
        if self._lost and self._required:
            raise TrackingError(f"{self._name} did not take {self._lost[0]}")

    def deliver(self) -> None:
        """Try once more to pass on what waits, if the store was out of reach."""
        if self._out:
            missed = len(self._waiting)
            self.reach()
            if not self._out:
                self._report(f"{self._name} is back and has the {missed} records that it missed")

    def close(self) -> None:
        """Deliver, and report what is lost."""
        self.deliver()
        lost = [*self._lost, *(what for what, _ in self._waiting)]
        self._waiting.clear()
        self._lost.clear()
        if lost:
            self._report(
                f"{self._name}: {len(lost)} records are lost, the first of them {lost[0]}. "
                "history.csv in the bundle of a training has its curves"
            )

    def _start(self) -> Future[None]:
        turn: Future[None] = Future()

        def run() -> None:
            try:
                self._pass_on()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                turn.set_exception(error)
            else:
                turn.set_result(None)

        threading.Thread(target=run, name="tracking", daemon=True).start()
        return turn

    def _pass_on(self) -> None:
        if not self._reached:
            self._reach()
            self._reached = True
        while self._waiting:
            what, pass_on = self._waiting[0]
            try:
                pass_on()
            except Exception:  # noqa: BLE001 - raised below, unless it passes
                # This raises when the store itself is out of reach: then all waits.
                self._reached = False
                self._reach()
                self._reached = True
                try:
                    pass_on()
                except Exception as error:  # noqa: BLE001 - reported as lost
                    self._lost.append(f"{what} ({masked(str(error))})")
            self._waiting.popleft()
