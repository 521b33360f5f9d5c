"""Access: API keys from a file."""

import hashlib
import hmac
import logging
from pathlib import Path

from fastapi import Request

from cxr_serving.http.errors import ServiceError
from cxr_serving.http.limiter import Limiter
from cxr_serving.http.metrics import Metrics

# Random characters, as `openssl rand -hex 16` writes them, cannot be guessed at this length.
_SHORTEST = 16

logger = logging.getLogger(__name__)


class KeysError(ValueError):
    """A key file cannot be used; the message names the line, never a key."""


class Keys:
    """The keys in a file, one line ``name key`` each.

    Blank lines and lines that begin with ``#`` are ignored; anywhere else ``#`` is an ordinary
    character. A name may have several lines, for its old key and its new one.

    The file is read again when it changes, so keys are rotated without a restart. If the changed
    file is invalid, the previous keys stay valid and the error is logged.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            KeysError: it is missing, holds no key, or holds an invalid line.
        """
        self._path = path
        self._stamp = self._stat()
        self._digests = _read(path)

    def owner(self, key: str) -> str | None:
        """The name of ``key``, or None; takes the same time whether the key is valid or not."""
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
            logger.error("the previous keys stay valid: %s", error)
        else:
            logger.info("read %d keys", len(self._digests))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Guard:
    """Admits a request, or raises the error that answers it."""

    def __init__(
        self,
        keys: Keys | None,
        admin_keys: Keys | None,
        limiter: Limiter | None,
        metrics: Metrics,
    ) -> None:
        self._keys = keys
        self._admin_keys = admin_keys
        self._limiter = limiter
        self._metrics = metrics

    async def user(self, request: Request) -> None:
        """Admit a request that may use the service now.

        Raises:
            ServiceError: 401 without a valid key, 429 above the rate limit.
        """
        if self._keys is None:
            owner = request.client.host if request.client else ""
        else:
            owner = _authenticate(request, self._keys)
        if self._limiter is not None and (wait := await self._limiter.wait(owner)):
            self._metrics.rejections.labels("rate_limit").inc()
            raise ServiceError(
                429,
                "rate_limited",
                f"more than {self._limiter.rate}: try again later",
                {"Retry-After": str(wait)},
            )

    async def admin(self, request: Request) -> None:
        """Admit a request that may change which model serves.

        Raises:
            ServiceError: 401 without a valid key, 403 without a file of admin keys.
        """
        if self._admin_keys is None:
            raise ServiceError(403, "admin_disabled", "no admin keys: set CXR_ADMIN_KEYS_FILE")
        owner = _authenticate(request, self._admin_keys)
        logger.info("admin request", extra={"admin": owner, "path": request.url.path})


def _authenticate(request: Request, keys: Keys) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    owner = keys.owner(key.strip()) if scheme.lower() == "bearer" else None
    if owner is None:
        raise ServiceError(
            401,
            "unauthorized",
            "a valid key is required in the header Authorization: Bearer <key>",
            {"WWW-Authenticate": "Bearer"},
        )
    return owner


def _read(path: Path) -> list[tuple[str, bytes]]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:  # whose message quotes the file
        raise KeysError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    lines: dict[bytes, int] = {}
    owners = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        problem = _problem(words)
        if problem is None:
            name, key = words
            digest = _digest(key)
            first = lines.setdefault(digest, number)
            if first == number:
                owners.append((name, digest))
                continue
            problem = f"the key is that of line {first}"
        raise KeysError(
            f"{path}, line {number}: {problem}; expected a name and a key, "
            "as in: ward-3 $(openssl rand -hex 32)"
        )
    if not owners:
        raise KeysError(f"{path} holds no key")
    return owners


def _problem(words: list[str]) -> str | None:
    """What is wrong with a line of the file, without quoting it."""
    if len(words) != 2:
        return f"{len(words)} word{'s' * (len(words) > 1)}, and a comment needs a line of its own"
    _, key = words
    if len(key) < _SHORTEST:
        return f"the key has fewer than {_SHORTEST} characters"
    if not (key.isascii() and key.isprintable()):
        return "the key has characters that an HTTP header cannot carry; use letters and digits"
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
