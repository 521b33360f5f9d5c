"""The rate limit: how many requests each owner of a key may send, at one replica or at several."""

import logging
import math
import time
from asyncio import timeout
from collections.abc import Awaitable, Callable
from typing import Any

import limits
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter as SharedLimiter
from limits.errors import StorageError
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from limits.util import WindowStats
from pydantic import RedisDsn

from cxr_serving.http.metrics import Metrics

_SECONDS = 0.5  # for Redis to count a request
# Until a Redis that was lost is tried again: twice as long after each attempt.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_CONNECTIONS = 4

logger = logging.getLogger(__name__)


class Limiter:
    """Counts requests against the rate limit.

    With a Redis, replicas count together there. While it cannot be used, each counts for itself:
    now and then a request tries again, and all others lose no time.
    """

    def __init__(self, rate: str, redis: RedisDsn | None, metrics: Metrics) -> None:
        """Prepare the client; nothing is sent before :meth:`start`.

        Args:
            rate: as ``100/minute``.
            redis: counts for all replicas; None counts in this process.
            metrics: has the number of requests that this replica counted for itself although there
                is a Redis.
        """
        self.rate = limits.parse(rate)
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._shared = None if redis is None else _Shared(redis, self.rate)
        self._metrics = metrics
        self._pause = 0.0  # 0 while Redis can be used
        self._next = 0.0

    async def start(self) -> None:
        """Try Redis, so that the log says at the start why it cannot be used."""
        if self._shared is not None:
            await self._ask(self._shared, self._shared.seconds, "")

    async def wait(self, owner: str) -> int:
        """Count a request of ``owner``.

        Returns:
            0 for a request within the limit; else it is not counted, and this is the number of
            seconds until one will be.
        """
        if self._shared is not None:
            wait = await self._ask(self._shared, self._shared.wait, owner)
            if wait is not None:
                return wait
            self._metrics.rate_limit_fallbacks.inc()
        if self._own.hit(self.rate, owner):
            return 0
        return _seconds_until(self._own.get_window_stats(self.rate, owner))

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._shared is not None:
            await self._shared.close()

    async def _ask(
        self, shared: "_Shared", question: Callable[[str], Awaitable[int]], owner: str
    ) -> int | None:
        """The answer of Redis; None while it cannot be used."""
        now = time.monotonic()
        if self._pause:
            if now < self._next:
                return None
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next = now + self._pause  # the others do not wait for what this request finds
        try:
            async with timeout(_SECONDS):
                answer = await question(owner)
        except TimeoutError:
            self._lose(shared, f"no answer within {_SECONDS:g} s")
            return None
        except StorageError as error:
            self._lose(shared, _reason(error.storage_error))
            return None
        except ValueError:
            self._lose(shared, "its answer is not that of a Redis")
            return None
        if self._pause:
            self._pause = 0.0
            logger.info("%s can be used again: replicas count requests together", shared.name)
        return answer

    def _lose(self, shared: "_Shared", reason: str) -> None:
        if self._pause:
            return
        self._pause = _FIRST_PAUSE
        self._next = time.monotonic() + self._pause
        logger.warning(
            "%s cannot be used (%s): until it can, each replica counts requests for itself",
            shared.name,
            reason,
        )


class _Shared:
    """Counts in Redis.

    Attributes:
        name: without the password.
    """

    def __init__(self, url: RedisDsn, rate: limits.RateLimitItem) -> None:
        from redis.asyncio import BlockingConnectionPool

        self._rate = rate
        self.name = f"Redis at {url.host}:{url.port}"
        # Who waits for a connection, waits no longer than for an answer.
        self._pool = BlockingConnectionPool.from_url(
            str(url), max_connections=_CONNECTIONS, timeout=None
        )
        options: dict[str, Any] = {"connection_pool": self._pool}
        self._limiter = SharedLimiter(
            RedisStorage(
                "async+redis://",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="cxr",
                **options,
            )
        )

    async def wait(self, owner: str) -> int:
        return 0 if await self._limiter.hit(self._rate, owner) else await self.seconds(owner)

    async def seconds(self, owner: str) -> int:
        return _seconds_until(await self._limiter.get_window_stats(self._rate, owner))

    async def close(self) -> None:
        await self._pool.aclose()


def _seconds_until(window: WindowStats) -> int:
    return max(1, math.ceil(window.reset_time - time.time()))


def _reason(error: Exception) -> str:
    """Without the words of the server, which may repeat the password that it was sent."""
    cause = error.__context__
    system = str(cause) if isinstance(cause, OSError) else ""
    return system or type(error).__name__
