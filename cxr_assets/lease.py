"""A lock that processes on several machines share: an object in a bucket that its holder renews.

A holder that dies, or is cut off, loses it after a minute. Its age is counted by the clock of the
server, so that those of the machines need not agree.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import BaseModel, ValidationError

from cxr_assets.progress import Progress
from cxr_serving.model.remote import Bucket, Object
from cxr_serving.model.remote_errors import ConflictError, NoConditionsError, RemoteError

# Without renewal, after which it is anybody's.
SECONDS = 60.0
_SECONDS_TO_RELEASE = 10
_NEVER = "0" * 32  # an etag that no object has


class Note(BaseModel):
    """The contents of the object.

    Attributes:
        holder: host and process, or None when nobody holds it.
        once: differs in each writing, so that no two have the same etag.
    """

    holder: str | None
    once: str

    @classmethod
    def content(cls, holder: str | None) -> bytes:
        """A new one, as it is written."""
        return cls(holder=holder, once=uuid.uuid4().hex).model_dump_json().encode()


class Lease:
    """One that this process has acquired, and renews until it releases it."""

    def __init__(self, bucket: Bucket, key: str, etag: str) -> None:
        self._bucket = bucket
        self._key = key
        self._etag = etag
        self._unanswered: bytes | None = None
        self._writing = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Renew it, before something is written that its holder alone may write.

        The server says who holds it: the clock of a suspended machine may have stood still.

        Raises:
            ConflictError: another process does, because this one has not renewed it in time.
            RemoteError: the server does not say.
        """
        try:
            self._write()
        except ConflictError as error:
            raise ConflictError(
                f"{self._bucket.name(self._key)} could not be renewed for {SECONDS:g} s, and "
                "another process has gone on: do the same again"
            ) from error

    def release(self) -> None:
        """Leave it to the next one at once; where the bucket is silent or fails, it expires."""
        self._released.set()
        self._thread.join(_SECONDS_TO_RELEASE)

    def _keep(self) -> None:
        while not self._released.wait(SECONDS / 4):
            try:
                self._write()
            except ConflictError:
                return
            except RemoteError:
                continue  # it may answer before the lease has expired
        with suppress(RemoteError):
            self._bucket.write(self._key, Note.content(None), self._etag)

    def _write(self) -> None:
        with self._writing:
            if self._unanswered is not None:  # the same again: it may be there already
                self._etag = self._bucket.write(self._key, self._unanswered, self._etag)
            self._unanswered = Note.content(_holder())
            self._etag = self._bucket.write(self._key, self._unanswered, self._etag)
            self._unanswered = None


@contextmanager
def held(bucket: Bucket, key: str, busy: str, progress: Progress) -> Iterator[Lease]:
    """Hold a lease; if another process does, report that and wait.

    Args:
        bucket: that all who compete for it use.
        key: of its object.
        busy: what the other process does, such as ``a model is being trained``.
        progress: called with a line before waiting.

    Raises:
        NoConditionsError: the server would let two hold it; nothing else has been written.
        RemoteError: the bucket cannot be used.
    """
    lease = Lease(bucket, key, _acquire(bucket, key, busy, progress))
    try:
        yield lease
    finally:
        lease.release()


def _acquire(bucket: Bucket, key: str, busy: str, progress: Progress) -> str:
    reported = False
    while True:
        found = bucket.read(key)
        holder = found and _held_by(found)
        if found is None or holder is None or found.age.total_seconds() > SECONDS:
            with suppress(ConflictError):  # somebody else was first
                seen = None if found is None else found.etag
                etag = bucket.write(key, Note.content(_holder()), seen)
                return _require_conditions(bucket, key, etag)
            continue
        if not reported:
            progress(f"{busy} by {holder}: waiting for {bucket.name(key)}")
            reported = True
        time.sleep(min(1.0, SECONDS / 10))


def _require_conditions(bucket: Bucket, key: str, etag: str) -> str:
    """Write a lease that was just acquired on conditions that hold and do not; returns its etag.

    Some servers write whatever the condition is, and say nothing.
    """
    try:
        for seen in (None, _NEVER):
            with suppress(ConflictError):
                bucket.write(key, Note.content(_holder()), seen)
                fault = "replaces it on a condition that is false"
                raise NoConditionsError(bucket.name(key), fault)
        return bucket.write(key, Note.content(_holder()), etag)
    except NoConditionsError:
        bucket.delete(key)  # nobody waits for a step that does not begin
        raise


def _held_by(found: Object) -> str | None:
    try:
        return Note.model_validate_json(found.content).holder
    except ValidationError:
        return None


def _holder() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"
