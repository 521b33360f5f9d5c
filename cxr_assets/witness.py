"""Delivers records to a store; training neither waits for that nor fails with it."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from cxr_assets.progress import Progress

# Seconds to wait for the store before training continues without it. Creating a SQLite store takes
# a few of them on a busy machine.
LIMIT = 60.0


class TrackingError(Exception):
    """The tracking store is out of reach or rejects a record, and it is required."""


def masked(text: str) -> str:
    """``text`` without user names and passwords in its addresses."""
    return re.sub(r"//[^/\s@]+@", "//***@", text)


class Witness:
    """Passes records on to a store, in order, in a thread of its own.

    An interrupt reaches only the main thread, so it never cuts a write short, which would leave a
    SQLite file locked.

    When the store is out of reach, records wait until :meth:`deliver` or :meth:`close`: each tries
    the store once more, for ``LIMIT`` seconds at most.

    Args:
        name: of the store, for messages.
        reach: connects to the store, or raises. Called before the first record and whenever the
            store fails to take one.
        report: called with a line when the store is lost, is back, or has lost records.
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
            what: description of the record, for the message if it is lost.
            pass_on: writes it to the store; called again if it raises and the store answers.

        Raises:
            TrackingError: the store rejects it, and it is required.
        """
        self._waiting.append((what, pass_on))
        if not self._out:
            self.reach()

    def reach(self) -> None:
        """Connect to the store and pass on pending records.

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
        except Exception as error:  # noqa: BLE001 - whatever the store raises
            lines = masked(str(error)).splitlines()
            why = lines[0] if lines else f"no answer in {LIMIT:.0f} s"
            if self._required:
                raise TrackingError(
                    f"{self._name} is out of reach ({why}). Start it, or train without it: "
                    "tracking.required=false"
                ) from None  # MLflow's message may contain a password
            self._out = True
            self._report(
                f"{self._name} is still out of reach"
                if was_out
                else f"{self._name} is out of reach ({why}): continuing without it; "
                "records are kept and sent at the end of the training if it answers then"
            )
        if self._lost and self._required:
            raise TrackingError(f"{self._name} rejected {self._lost[0]}")

    def deliver(self) -> None:
        """Try again to pass on pending records, if the store was out of reach."""
        if self._out:
            missed = len(self._waiting)
            self.reach()
            if not self._out:
                self._report(
                    f"{self._name} is back and has received the {missed} records that it missed"
                )

    def close(self) -> None:
        """Deliver pending records and report those that are lost."""
        self.deliver()
        lost = [*self._lost, *(what for what, _ in self._waiting)]
        self._waiting.clear()
        self._lost.clear()
        if lost:
            what = f"{len(lost)} records are lost, the first of them"
            self._report(
                f"{self._name}: {what if len(lost) > 1 else 'a record is lost:'} {lost[0]}. "
                "The curves of a training are in history.csv of its bundle"
            )

    def _start(self) -> Future[None]:
        turn: Future[None] = Future()

        def run() -> None:
            try:
                self._pass_on()
            except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
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
            except Exception:  # noqa: BLE001 - retried once below
                # Raises if the store itself is out of reach; then all records wait.
                self._reached = False
                self._reach()
                self._reached = True
                try:
                    pass_on()
                except Exception as error:  # noqa: BLE001 - reported as lost
                    self._lost.append(f"{what} ({masked(str(error))})")
            self._waiting.popleft()
