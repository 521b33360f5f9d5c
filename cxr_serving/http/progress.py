"""Whether images are still being answered."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Tells a stalled service from an idle one.

    The service is stalled while images wait and none has been answered for longer than any of them
    may wait. Once nothing waits it counts as healthy, so that a load balancer that had stopped
    sending tries again; the next answer decides.
    """

    def __init__(self, seconds: float) -> None:
        """Stalled means ``seconds`` without an answer: the deadline of a request."""
        self.seconds = seconds
        self._waiting = 0
        # When the wait for an answer began; None if no image arrived since the last answer.
        self._since: float | None = None
        self._left = 0.0

    @property
    def stalled(self) -> bool:
        """Whether images wait and none is answered."""
        return (
            self._waiting > 0
            and self._since is not None
            and time.monotonic() - self._since > self.seconds
        )

    @contextmanager
    def image(self) -> Iterator[None]:
        """Surrounds the work on one image; an exception means that it was not answered."""
        now = time.monotonic()
        after_a_pause = self._waiting == 0 and now - self._left > self.seconds
        if self._since is None or after_a_pause:
            self._since = now
        self._waiting += 1
        try:
            yield
            self._since = time.monotonic() if self._waiting > 1 else None
        finally:
            self._waiting -= 1
            self._left = time.monotonic()
