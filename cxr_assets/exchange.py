"""A data root in a bucket: what a step brings from there before, and leaves there after it.

Steps compute in a local folder, as ever. Models, reports, releases, decisions and withdrawals are
shared: each version is one object of the bucket, and each other file one. Images, embeddings, the
copies of metrics that a service reads and MLflow's file stay local, and are made again on another
machine.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cxr_assets import lease, written
from cxr_assets.layout import SHARED_DIRECTORY, SHARED_FILE, Layout
from cxr_assets.progress import Progress, held
from cxr_serving.model import hashes, store
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import POINTER_FILE, RECORD_FILE, BundleError
from cxr_serving.model.remote import Bucket
from cxr_serving.model.remote_errors import ConflictError, DamagedError, RemoteError
from cxr_serving.model.replica import SUFFIX, receive, send

_LEASE = "locks/changes.json"


class Known(BaseModel):
    """An object when the local folder and the bucket were last seen to agree.

    Attributes:
        etag: in the bucket.
        digest: of the local copy; None where the object is damaged, and there is none.
    """

    etag: str
    digest: str | None


class State(BaseModel):
    """The contents of ``exchanged.json``.

    Attributes:
        known: by key.
    """

    known: dict[str, Known] = {}


def pull(layout: Layout, progress: Progress) -> None:
    """Bring what is new in the bucket; nothing to do where the data root is a folder.

    Raises:
        RemoteError: the bucket cannot be read.
    """
    if layout.url is not None:
        _Exchange(layout, layout.url, progress).pull()


@contextmanager
def exchanged(layout: Layout, progress: Progress) -> Iterator[None]:
    """Bring what is new, have the body change it, and leave the changes in the bucket.

    One process at a time does so. Versions go first, pointers last; nothing is replaced that has
    changed in the meantime. What an error or a kill has kept back is left there by the next step.
    Nothing to do where the data root is a folder.

    Raises:
        ConflictError: another process was first; the local changes remain until the next step.
        RemoteError: the bucket cannot be used.
    """
    if layout.url is None:
        yield
        return
    exchange = _Exchange(layout, layout.url, progress)
    busy = "the data root is being changed"
    with lease.held(exchange.bucket, _LEASE, busy, progress) as ours:
        exchange.pull()
        try:
            yield
        except Exception:
            exchange.push(ours)
            raise
        exchange.push(ours)


class _Exchange:
    def __init__(self, layout: Layout, url: str, progress: Progress) -> None:
        self.bucket = Bucket(url)
        self._layout = layout
        self._progress = progress
        self._file = layout.exchanged
        self._state = State()
        self._before: set[str] = set()

    def pull(self) -> None:
        with self._locked():
            self._pull()

    def push(self, ours: lease.Lease) -> None:
        with self._locked():
            self._push(ours)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes of this machine from the local copy, and read its state."""
        with held(self._layout.exchange_lock, "data are being exchanged", self._progress):
            try:
                self._state = State.model_validate_json(self._file.read_bytes())
            except (OSError, ValidationError):
                self._state = State()  # all that is in the bucket is brought again
            yield

    def _pull(self) -> None:
        found = self.bucket.list()
        shared = sorted((key for key in found if _is_shared(key)), key=_order)
        if self._state.known and not shared:
            raise RemoteError(
                f"{self.bucket.url} is empty, but {self._layout.root} is a copy of what it held: "
                f"restore it, or delete {self._file} to put there what the copy holds"
            )
        for key in shared:
            known, path = self._state.known.get(key), self._path(key)
            if known is None or known.etag != found[key] or not path.exists():
                self._bring(key, path)
        for key in self._state.known.keys() - found.keys():
            self._remove(key, self._path(key))
        self._before = set(shared)

    def _push(self, ours: lease.Lease) -> None:
        local = {key: self._path(key) for key in self._local()}
        for key in sorted(local, key=_order):
            digest, known = _digest(local[key]), self._state.known.get(key)
            if digest is None or (known is not None and known.digest == digest):
                continue
            seen = None if known is None else known.etag
            ours.require()
            if key.endswith(SUFFIX):
                etag = send(self.bucket, key, local[key], seen)
            else:
                etag = self.bucket.write(key, local[key].read_bytes(), seen)
            self._agree(key, Known(etag=etag, digest=digest))
        # Only what the step itself has deleted: a folder that was lost is no wish to lose the rest.
        for key in self._before - local.keys():
            if key in self._state.known and self._state.known[key].digest is not None:
                ours.require()
                self.bucket.delete(key)
                self._agree(key, None)

    def _bring(self, key: str, path: Path) -> None:
        if key.endswith(SUFFIX):
            try:
                etag = receive(self.bucket, key, path, _check)
            except DamagedError as error:
                self._progress(f"left out: {error}")
                etag = self.bucket.etag(key) or ""
                self._agree(key, Known(etag=etag, digest=None))
                return
        else:
            found = self.bucket.read(key)
            if found is None:
                return
            if path == self._layout.withdrawn:
                self._require_agreement(key, path, found.content)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, found.content)
            etag = found.etag
        self._agree(key, Known(etag=etag, digest=_digest(path)))

    def _require_agreement(self, key: str, path: Path, content: bytes) -> None:
        """What a person has recorded is not replaced by what another has."""
        known = self._state.known.get(key)
        same = path.exists() and _digest(path) == (known and known.digest)
        if path.exists() and not same and path.read_bytes() != content:
            raise ConflictError(
                f"{path} and {self.bucket.name(key)} have both changed: move the file away, then "
                "run `cxr data forget` again for the patients that only it names"
            )

    def _remove(self, key: str, path: Path) -> None:
        """Follow a deletion, unless the local copy is another one by now."""
        if path.exists() and _digest(path) == self._state.known[key].digest:
            if path.is_dir():
                deleted = path.with_name(f".{path.name}.deleted")
                path.rename(deleted)
                shutil.rmtree(deleted)
            else:
                path.unlink()
        self._agree(key, None)

    def _agree(self, key: str, known: Known | None) -> None:
        if known is None:
            self._state.known.pop(key, None)
        else:
            self._state.known[key] = known
        write_file(self._file, self._state.model_dump_json(indent=1).encode())

    def _local(self) -> Iterator[str]:
        root = self._layout.root
        for path in (*root.glob("*"), *root.glob("*/*"), *root.glob("models/*/*")):
            key = path.relative_to(root).as_posix()
            key = f"{key}{SUFFIX}" if path.is_dir() else key
            if _is_shared(key):
                yield key

    def _path(self, key: str) -> Path:
        return self._layout.root / key.removesuffix(SUFFIX)


def _is_shared(key: str) -> bool:
    directory = key.endswith(SUFFIX) and SHARED_DIRECTORY.fullmatch(key.removesuffix(SUFFIX))
    return bool(directory or SHARED_FILE.fullmatch(key))


def _order(key: str) -> tuple[bool, bool, str]:
    """Versions, then other files, then pointers."""
    return not key.endswith(SUFFIX), key.endswith(POINTER_FILE), key


def _record(directory: Path) -> Path:
    """The file that says what is in a bundle, a release or a report."""
    record = directory / RECORD_FILE
    return record if record.exists() else directory / written.RECORD_FILE


def _digest(path: Path) -> str | None:
    """Changes with the content; None for a directory of somebody else."""
    path = _record(path) if path.is_dir() else path
    return hashes.of_file(path) if path.is_file() else None


def _check(directory: Path) -> None:
    if _record(directory).name == RECORD_FILE:
        store.verify(directory)
    elif fault := written.fault(directory):
        raise BundleError(fault)
