"""Whether images that are sent are answered at all."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Knows a service that has stopped answering from one that is idle.

    It is stalled while images wait and none has been answered for longer than any of them may
    wait. Once nothing waits it is no longer called stalled, so that a load balancer that stopped
    sending because of it tries again; the next answer decides.
    """

    def __init__(self, seconds: float) -> None:
        """Call it stalled after ``seconds`` without an answer, the deadline of a request."""
        self.seconds = seconds
        self._waiting = 0
        # Since when no image was answered; None if none has been sent since the last answer.
        self._since: float | None = None
        self._left = 0.0

    @property
    def stalled(self) -> bool:
        """Whether images wait in vain."""
        return (
            self._waiting > 0
            and self._since is not None
            and time.monotonic() - self._since > self.seconds
        )

    @contextmanager
    def image(self) -> Iterator[None]:
        """Around the work on one image, which is answered unless this raises."""
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
