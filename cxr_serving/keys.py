"""Who may ask what: keys from a file, and how often."""

import hashlib
import hmac
import logging
import math
import time
from pathlib import Path

import limits
from fastapi import Request
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from cxr_serving.errors import ServiceError
from cxr_serving.metrics import Metrics

# Of random characters as `openssl rand -hex 16` makes them: not to be guessed.
_SHORTEST = 16

logger = logging.getLogger(__name__)


class KeysError(ValueError):
    """A file of keys cannot be used; the message names the line, never a key."""


class Keys:
    """The keys in a file, a line ``name key`` each; ``#`` begins a comment.

    The file is read again whenever it has changed: keys are rotated without a restart. A change
    that cannot be read leaves the keys that were valid before, and is logged.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            KeysError: there is none, or it holds no key or something else.
        """
        self._path = path
        self._stamp = self._stat()
        self._digests = _read(path)

    def owner(self, key: str) -> str | None:
        """The name beside ``key``, or None; takes as long whether the key is right or not."""
        self._refresh()
        digest = _digest(key)
        owner = None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                owner = name
        return owner

    def _refresh(self) -> None:
        stamp = self._stat()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = _read(self._path)
        except KeysError as error:
            logger.error("the keys of before stay valid: %s", error)
        else:
            logger.info("read %d keys", len(self._digests))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Guard:
    """Lets a request through, or raises what it is answered with."""

    def __init__(
        self,
        keys: Keys | None,
        admin_keys: Keys | None,
        rate_limit: str | None,
        metrics: Metrics,
    ) -> None:
        self._keys = keys
        self._admin_keys = admin_keys
        self._rate_limit = None if rate_limit is None else limits.parse(rate_limit)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._metrics = metrics

    async def user(self, request: Request) -> None:
        """Whether the request may use the service, now.

        Raises:
            ServiceError: 401 without a right key, 429 when it comes too often.
        """
        if self._keys is None:
            owner = request.client.host if request.client else ""
        else:
            owner = _authenticate(request, self._keys)
        if self._rate_limit is not None and not self._limiter.hit(self._rate_limit, owner):
            self._metrics.rejections.labels("rate_limit").inc()
            reset = self._limiter.get_window_stats(self._rate_limit, owner).reset_time
            raise ServiceError(
                429,
                "rate_limited",
                f"more than {self._rate_limit}; ask again later",
                {"Retry-After": str(max(1, math.ceil(reset - time.time())))},
            )

    async def admin(self, request: Request) -> None:
        """Whether the request may change what serves.

        Raises:
            ServiceError: 401 without a right key, 403 when nobody may.
        """
        if self._admin_keys is None:
            raise ServiceError(
                403, "admin_disabled", "nobody may do this: CXR_ADMIN_KEYS_FILE is not set"
            )
        owner = _authenticate(request, self._admin_keys)
        logger.info("admin request", extra={"admin": owner, "path": request.url.path})


def _authenticate(request: Request, keys: Keys) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    owner = keys.owner(key.strip()) if scheme.lower() == "bearer" else None
    if owner is None:
        raise ServiceError(
            401,
            "unauthorized",
            "a valid key is needed, in the header Authorization: Bearer <key>",
            {"WWW-Authenticate": "Bearer"},
        )
    return owner


def _read(path: Path) -> list[tuple[str, bytes]]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"{path} cannot be read: {error}") from error
    digests = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or len(words[1]) < _SHORTEST:
            raise KeysError(
                f"{path}, line {number}: expected a name and a key of at least {_SHORTEST} "
                "characters, as in: ward-3 $(openssl rand -hex 32)"
            )
        digests.append((words[0], _digest(words[1])))
    if not digests:
        raise KeysError(f"{path} holds no key")
    return digests


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
