"""The local copy of versions that lie in a bucket: what the service loads its models from.

A version is one object, ``<place>/<version>.tar``, so that readers see it whole or not at all. It
enters a local copy only when it is as its record says.
"""

import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from cxr_serving.model import atomic, bundle, store
from cxr_serving.model.bundle import POINTER_FILE, BundleError
from cxr_serving.model.remote import Bucket, Object
from cxr_serving.model.remote_errors import DamagedError, RemoteError

SUFFIX = ".tar"
# Local versions: the one that serves, the one before, and one to spare.
_KEPT = 3


def send(bucket: Bucket, key: str, directory: Path, seen: str | None) -> str:
    """Write a directory as one object, a tar file; returns its etag.

    Args:
        bucket: to write to.
        key: of the object.
        directory: that nobody changes.
        seen: as for :meth:`Bucket.write`.

    Raises:
        ConflictError: another writer was first; nothing has changed.
        RemoteError: the object cannot be written; nothing has changed.
    """

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""  # of users of this machine
        return member

    archive = directory.with_name(f".{directory.name}.{os.getpid()}{SUFFIX}")
    try:
        with tarfile.open(archive, "w") as tar:
            tar.add(directory, arcname=".", filter=anonymous)
        return bucket.write(key, archive, seen)
    finally:
        archive.unlink(missing_ok=True)


def receive(
    bucket: Bucket,
    key: str,
    directory: Path,
    check: Callable[[Path], object],
    going: Callable[[], bool] = lambda: True,
) -> str:
    """Put the directory that an object holds in its place, whole; returns the object's etag.

    Args:
        bucket: to read from.
        key: of the object, a tar file.
        directory: its place; what is there is replaced.
        check: raises an error where the unpacked directory is not as its record says.
        going: as for :meth:`Bucket.download`.

    Raises:
        DamagedError: the object is missing or damaged; nothing has changed.
        RemoteError: it cannot be read, or the directory cannot be written; nothing has changed.
    """
    # Two threads may be at it, each for itself.
    partial = directory.with_name(f".{directory.name}.{threading.get_native_id()}.partial")
    archive, content = partial / "archive", partial / "content"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        etag = bucket.download(key, archive, going)
        try:
            _unpack(archive, content)
            archive.unlink()
            check(content)
        except (BundleError, tarfile.TarError) as error:
            reason = str(error).replace(str(content), bucket.name(key))
            raise DamagedError(f"{bucket.name(key)} cannot be used: {reason}") from error
        atomic.swap_directory(content, directory)
    except OSError as error:
        raise RemoteError(
            f"{error.filename or directory} cannot be written ({error.strerror}): free space, or "
            "set CXR_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return etag


def _unpack(archive: Path, folder: Path) -> None:
    """Write files and folders of a tar file into ``folder``, and nothing elsewhere.

    As ``extractall(filter="data")``, which Python has since 3.11.4; Debian 12's is older.

    Raises:
        TarError: it is damaged, or holds something else.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            source = tar.extractfile(member) if member.isreg() else None
            if name.is_absolute() or ".." in name.parts or not (source or member.isdir()):
                raise tarfile.ExtractError(f"{member.name} is no file of it")
            place = folder / name
            (place.parent if source else place).mkdir(parents=True, exist_ok=True)
            if source:
                with source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)


class Replica:
    """Follows a pointer in a bucket: its target lies in the local copy before the pointer does."""

    def __init__(self, url: str, root: Path, directory: Path) -> None:
        """Prepare to follow; nothing is sent.

        Args:
            url: of the data root.
            root: its local copy.
            directory: the place of versions and pointer, below ``root``.

        Raises:
            RemoteError: the client's configuration is wrong.
        """
        self._bucket = Bucket(url)
        self._place = directory.relative_to(root).as_posix()
        self._directory = directory
        self._followed: tuple[str, str] | None = None
        # Etag and fault of the versions that are damaged in the bucket.
        self._damaged: dict[str, tuple[str | None, DamagedError]] = {}
        self._closed = threading.Event()

    def follow(self, pinned: str | None = None) -> None:
        """Bring the version that the pointer names, and ``pinned``, then the pointer.

        Where nothing has changed, this is one short request. A damaged version is remembered:
        :meth:`require` says so.

        Raises:
            BundleError: the bucket cannot be read, or its pointer is none; the local copy stays.
        """
        etag = self._bucket.etag(self._key(POINTER_FILE))
        if etag is None:
            return
        if self._followed != (etag, pinned or ""):
            pointer = self._bucket.read(self._key(POINTER_FILE))
            if pointer is not None:
                self._follow(pointer, pinned)
        for version, (damaged, _) in list(self._damaged.items()):
            if self._bucket.etag(self._key(version + SUFFIX)) != damaged:
                self._try(version)

    def bring(self, version: str) -> None:
        """Have an intact copy of a version.

        Raises:
            DamagedError: it is missing or damaged in the bucket.
            RemoteError: the bucket cannot be read, or the disk written.
        """
        directory = self._directory / version
        with suppress(BundleError):
            store.verify(directory)
            return
        key = self._key(version + SUFFIX)
        receive(self._bucket, key, directory, store.verify, lambda: not self._closed.is_set())
        self._damaged.pop(version, None)

    def require(self, version: str) -> None:
        """Do nothing, unless the version is damaged in the bucket.

        Raises:
            DamagedError: it is, and was not brought.
        """
        if version in self._damaged:
            raise self._damaged[version][1]

    def versions(self) -> set[str]:
        """The versions in the bucket."""
        keys = self._bucket.list(f"{self._place}/")
        names = (key.removeprefix(f"{self._place}/").removesuffix(SUFFIX) for key in keys)
        return {name for name in names if bundle.is_version(name)}

    def close(self) -> None:
        """End a download that is under way."""
        self._closed.set()

    def _follow(self, pointer: Object, pinned: str | None) -> None:
        named = bundle.Pointer.parse(pointer.content, self._bucket.name(self._key(POINTER_FILE)))
        self._damaged.clear()
        for version in {named.version, pinned or named.version}:
            self._try(version)
        atomic.write_file(self._directory / POINTER_FILE, pointer.content)
        self._followed = (pointer.etag, pinned or "")
        store.prune(self._directory, _KEPT, protect=[pinned])

    def _try(self, version: str) -> None:
        try:
            self.bring(version)
        except DamagedError as error:
            etag = self._bucket.etag(self._key(version + SUFFIX))
            self._damaged[version] = (etag, error)
            self._directory.mkdir(parents=True, exist_ok=True)

    def _key(self, name: str) -> str:
        return f"{self._place}/{name}"
