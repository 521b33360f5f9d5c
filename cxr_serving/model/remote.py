"""A bucket of S3, or of a server that speaks its protocol: the one module that knows its client.

An object is written whole or not at all, and only where the bucket still holds what the writer saw
there before, so of two writers one wins and the other gets an error. Every object carries the
sha256 of its content, which whoever reads it compares.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from cxr_serving.model import hashes
from cxr_serving.model.remote_errors import (
    ConflictError,
    DamagedError,
    NoConditionsError,
    RemoteError,
    UnreachableError,
)

_CHUNK = 2**16  # of a download, which can be stopped after each
_LARGEST = 5 * 2**30  # of an object that one request writes; the protocol's limit
_SECONDS_TO_CONNECT = 5
# Without a byte from the server.
_SECONDS_OF_SILENCE = 30
_ATTEMPTS = 3


@dataclass(frozen=True)
class Object:
    """A small object.

    Attributes:
        content: all of it.
        etag: changes whenever the object is written.
        age: time since it was written, by the server's clock.
    """

    content: bytes
    etag: str
    age: timedelta


class Bucket:
    """Objects below a prefix of a bucket, by their keys relative to that.

    Account, region and endpoint are those of the AWS command line: its environment variables, its
    files, or the role of the machine.
    """

    def __init__(self, url: str) -> None:
        """Prepare the client; nothing is sent.

        Args:
            url: ``s3://bucket/prefix``.

        Raises:
            RemoteError: the client's configuration is wrong.
        """
        from boto3.session import Session
        from botocore.config import Config

        self.url = url
        self._name, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        # Other servers rarely have a host name for each bucket.
        other = "AWS_ENDPOINT_URL" in os.environ or "AWS_ENDPOINT_URL_S3" in os.environ
        with self._answering(""):
            self._client: Any = Session().client(
                "s3",
                config=Config(
                    connect_timeout=_SECONDS_TO_CONNECT,
                    read_timeout=_SECONDS_OF_SILENCE,
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                    s3={"addressing_style": "path" if other else "auto"},
                    # Ours is compared at the other end, and other servers lack theirs.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )

    def name(self, key: str) -> str:
        """An object as messages name it."""
        return f"{self.url}/{key}"

    def etag(self, key: str) -> str | None:
        """The present etag of an object, or None where there is none."""
        found = self._head(key)
        return None if found is None else self._etag(key, found)

    def list(self, prefix: str = "") -> dict[str, str]:
        """The etags of all objects whose keys begin with ``prefix``, by key."""
        found = {}
        with self._answering(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._prefix + prefix
            )
            for page in pages:
                self._field(prefix, page, "IsTruncated")
                for one in page.get("Contents", ()):
                    found[one["Key"].removeprefix(self._prefix)] = str(one["ETag"])
        return found

    def read(self, key: str) -> Object | None:
        """A small object, or None where there is none.

        Raises:
            DamagedError: its content is not what was written.
        """
        with self._answering(key):
            answer = self._get(key)
            if answer is None:
                return None
            content: bytes = answer["Body"].read()
        etag = self._compare(key, answer, hashlib.sha256(content).hexdigest(), len(content))
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        now = parsedate_to_datetime(self._field(key, headers, "date"))
        return Object(content, etag, now - self._field(key, answer, "LastModified"))

    def download(self, key: str, path: Path, going: Callable[[], bool] = lambda: True) -> str:
        """Write an object to a file, as it arrives; returns its etag.

        After an error there is no file.

        Args:
            key: of the object.
            path: of a file that nobody else reads.
            going: queried now and then; the download ends when it is false.

        Raises:
            DamagedError: there is no such object, or its content is not what was written.
            UnreachableError: the connection has ended, or ``going`` is false.
        """
        digest = hashlib.sha256()
        try:
            with self._answering(key), path.open("wb") as file:
                answer = self._get(key)
                if answer is None:
                    raise DamagedError(f"{self.name(key)} does not exist")
                for chunk in answer["Body"].iter_chunks(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                    if not going():
                        raise UnreachableError(f"the download of {self.name(key)} was stopped")
            return self._compare(key, answer, digest.hexdigest(), path.stat().st_size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def write(self, key: str, content: bytes | Path, seen: str | None) -> str:
        """Write an object; returns its etag.

        Args:
            key: of the object.
            content: its bytes, or the file that holds them.
            seen: etag of the object to replace; None where there must be none.

        Raises:
            ConflictError: the bucket holds something else by now.
            NoConditionsError: it does not, but the server says so.
        """
        if isinstance(content, Path):
            if content.stat().st_size > _LARGEST:
                raise RemoteError(f"{self.name(key)} would exceed 5 GiB, and cannot be written")
            sha256 = hashes.of_file(content)
        else:
            sha256 = hashlib.sha256(content).hexdigest()
        # Without quotes: Ceph 16 knows no other form; the others know both.
        condition = {"IfNoneMatch": "*"} if seen is None else {"IfMatch": seen.strip('"')}
        answer, status = None, 0
        with self._answering(key):
            try:
                with _opened(content) as body:
                    answer = self._client.put_object(
                        **self._place(key), Body=body, Metadata={"sha256": sha256}, **condition
                    )
            except self._client.exceptions.ClientError as error:
                status = _status(error)
                if status not in (404, 409, 412) or _code(error) == "NoSuchBucket":
                    raise
        if answer is None:
            # It may be this very writing, whose answer was lost before the client tried again.
            answer = self._head(key)
            if answer is None or answer.get("Metadata", {}).get("sha256") != sha256:
                if status == 412 and answer is not None and answer.get("ETag") == seen:
                    raise NoConditionsError(self.name(key), "says it has changed, but it has not")
                raise ConflictError(
                    f"{self.name(key)} was changed by another process in the meantime: do the "
                    "same again, with what is there now"
                )
        return self._etag(key, answer)

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        with self._answering(key):
            self._client.delete_object(**self._place(key))

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._name, "Key": self._prefix + key}

    def _get(self, key: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._client.get_object(**self._place(key))
        except self._client.exceptions.NoSuchKey:
            return None
        return answer

    def _head(self, key: str) -> dict[str, Any] | None:
        with self._answering(key):
            try:
                answer: dict[str, Any] = self._client.head_object(**self._place(key))
            except self._client.exceptions.ClientError as error:
                if _status(error) != 404:
                    raise
                return None
            return answer

    def _compare(self, key: str, answer: dict[str, Any], sha256: str, size: int) -> str:
        """Check an object that was read; returns its etag."""
        if self._field(key, answer, "ContentLength") != size:
            raise self._ended(key)
        etag = self._etag(key, answer)
        # An object that was copied by other tools may have lost it.
        if answer.get("Metadata", {}).get("sha256", sha256) != sha256:
            raise DamagedError(f"{self.name(key)} does not match its sha256")
        return etag

    def _etag(self, key: str, answer: Mapping[str, Any]) -> str:
        etag = str(self._field(key, answer, "ETag"))
        if len(etag) < 2 or not etag.endswith('"'):
            raise self._ended(key)
        return etag

    def _field(self, key: str, answer: Mapping[str, Any], name: str) -> Any:
        """Part of an answer: the client takes one that was cut off for a whole one."""
        if name not in answer:
            raise self._ended(key)
        return answer[name]

    def _ended(self, key: str) -> UnreachableError:
        return UnreachableError(f"{self.name(key)}: the server's answer ended early")

    @contextmanager
    def _answering(self, key: str) -> Iterator[None]:
        """Turns the client's errors into ours."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        try:
            yield
        except exceptions.ClientError as error:
            if _status(error) == 501:
                raise NoConditionsError(self.name(key), f"answers {_code(error) or 501}") from error
            kind = UnreachableError if _status(error) >= 500 else RemoteError
            raise kind(
                f"{self.name(key)}: the server answers {_code(error) or _status(error)}; check the "
                "bucket and what this account may do there"
            ) from error
        except (
            exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError,
            ResponseParserError, ValueError,  # half a date or number, where an answer was cut
        ) as error:  # fmt: skip
            raise UnreachableError(
                f"{self.name(key)} cannot be reached ({' '.join(str(error).split())})"
            ) from error
        except exceptions.BotoCoreError as error:
            raise RemoteError(
                f"{self.name(key)} cannot be used ({' '.join(str(error).split())}): set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error


@contextmanager
def _opened(content: bytes | Path) -> Iterator[Any]:
    if isinstance(content, bytes):
        yield content
    else:
        with content.open("rb") as file:
            yield file


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _code(error: Any) -> str:
    return str(error.response["Error"].get("Code", ""))
