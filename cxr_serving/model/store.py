"""Bundles on disk: publishing, verifying, finding and deleting versions, and their pointer.

A bundle becomes visible by one rename, and is never changed after it. ``latest.json`` beside the
versions points to the newest, and says when the pipeline last confirmed that it is.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cxr_serving.model import atomic, hashes
from cxr_serving.model.bundle import (
    POINTER_FILE,
    RECORD_FILE,
    VERSION,
    BundleError,
    BundleRecord,
    Pointer,
    is_version,
)

# Writing one bundle takes minutes at most: an older leftover belongs to a process that died.
_LEFTOVER_SECONDS = 86_400
# Names that only a deletion or a publishing gives.
_DELETED = re.compile(rf"\.{VERSION.pattern}\.deleted")
_PARTIAL = re.compile(r"\..+\.\d+\.partial")

logger = logging.getLogger(__name__)


def asset_directory(data_root: Path, asset: str) -> Path:
    """Where the bundles of ``asset`` lie below the data root."""
    return data_root / "models" / asset


def releases_directory(data_root: Path) -> Path:
    """Where releases lie below the data root; each is a bundle, too."""
    return data_root / "releases"


def metrics_directory(data_root: Path) -> Path:
    """Where the metrics of reports lie below the data root, apart from pictures and tables."""
    return data_root / "metrics"


def metrics_file(data_root: Path, version: str) -> Path:
    """Where the metrics of the report on ``version`` lie below the data root."""
    return metrics_directory(data_root) / f"{version}.json"


def verify(directory: Path) -> BundleRecord:
    """Check that a bundle is intact: every recorded file is there, no other, and all hashes match.

    Hidden files are ignored.

    Raises:
        BundleError: names the file that is missing, unexpected or altered.
    """
    record = BundleRecord.read(directory)
    if fault := hashes.fault(directory, RECORD_FILE, record.files):
        raise BundleError(f"{fault}: materialise {record.asset} again, or fetch the bundle anew")
    return record


def publish(
    asset_directory: Path,
    record: BundleRecord,
    write_files: Callable[[Path], BundleRecord | None],
    point: bool = True,
) -> Path:
    """Write a bundle aside, verify it, move it into place and point ``latest.json`` to it.

    Whoever follows the pointer sees the old version or the new one, complete, even if this process
    is killed.

    Args:
        asset_directory: where the asset's bundles lie.
        record: the record; its ``files`` are filled in here.
        write_files: writes every file but ``bundle.json`` into the directory it is given; may
            return the record completed by what the files show, which is then published.
        point: whether to point ``latest.json`` to it, so that it is served.

    Returns:
        The published directory.

    Raises:
        BundleError: that version exists already, or the disk is full or read-only; then nothing
            has changed.
    """
    try:
        return _publish(asset_directory, record, write_files, point)
    except OSError as error:
        raise BundleError(
            f"{error.filename or asset_directory} cannot be written: {error.strerror or error}; "
            f"nothing in {asset_directory} has changed: free space or make it writable, then "
            "publish again"
        ) from error


def _publish(
    asset_directory: Path,
    record: BundleRecord,
    write_files: Callable[[Path], BundleRecord | None],
    point: bool,
) -> Path:
    final = asset_directory / record.version
    if final.exists():
        raise BundleError(f"{final} exists already; a published bundle is never changed")
    asset_directory.mkdir(parents=True, exist_ok=True)
    for leftover in asset_directory.glob(f".*-{record.fingerprint[:8]}.*.partial"):
        shutil.rmtree(leftover)  # a killed process was publishing the same training
    partial = asset_directory / f".{record.version}.{os.getpid()}.partial"
    try:
        partial.mkdir()
        described = write_files(partial) or record
        complete = described.model_copy(update={"files": hashes.of(partial, RECORD_FILE)})
        (partial / RECORD_FILE).write_text(
            complete.model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
        # safetensors writes for the owner alone; whoever may list a bundle may read it.
        readable = partial.stat().st_mode & 0o666
        for path in hashes.files(partial):
            path.chmod(readable)
        verify(partial)
        atomic.swap_directory(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if point:
        write_pointer(asset_directory, record.version)
    return final


def write_pointer(directory: Path, version: str) -> None:
    """Atomically replace ``latest.json`` in ``directory``: ``version`` is confirmed now."""
    content = Pointer(version=version, confirmed_at=datetime.now(UTC)).model_dump_json() + "\n"
    atomic.write_file(directory / POINTER_FILE, content.encode())


def read_pointer(directory: Path) -> str | None:
    """The version that ``latest.json`` in ``directory`` names, or None when there is none yet.

    Raises:
        BundleError: the pointer cannot be read or is not one.
    """
    pointer = Pointer.read(directory)
    return None if pointer is None else pointer.version


def latest(asset_directory: Path) -> Path:
    """The directory of the newest published bundle.

    Raises:
        BundleError: nothing was published yet, or the pointer is broken.
    """
    version = read_pointer(asset_directory)
    if version is None:
        raise BundleError(
            f"no model in {asset_directory}: materialise {asset_directory.name} first"
        )
    return asset_directory / version


def versions(asset_directory: Path) -> list[str]:
    """The published versions, oldest first."""
    if not asset_directory.is_dir():
        return []
    return sorted(path.name for path in asset_directory.iterdir() if is_version(path.name))


def find(asset_directory: Path, fingerprint: str) -> Path | None:
    """The newest intact bundle with ``fingerprint``, or None."""
    for version in reversed(versions(asset_directory)):
        if version.endswith(fingerprint[:8]):
            directory = asset_directory / version
            with suppress(BundleError):
                if verify(directory).fingerprint == fingerprint:
                    return directory
    return None


def foreign(directory: Path) -> str | None:
    """Why a bundle may not be deleted: a file that its record does not name, or an altered one.

    None where it may be.

    Hidden files are ignored.
    """
    try:
        record = BundleRecord.read(directory)
    except BundleError as error:
        return str(error)
    for name, sha256 in hashes.of(directory, RECORD_FILE).items():
        if record.files.get(name) != sha256:
            return f"{directory / name} is not the file that {RECORD_FILE} names"
    return None


def prune(
    directory: Path,
    keep: int,
    protect: Iterable[str | None] = (),
    foreign: Callable[[Path], str | None] = foreign,
) -> list[str]:
    """Delete the oldest versions beyond ``keep`` that no pointer names and that the pipeline wrote.

    A version is renamed before it is deleted: no reader ever sees a part of it. Also deleted are
    what killed processes left half written or half deleted, and all but the newest of the broken
    versions that were set aside.

    Args:
        directory: of the versions.
        keep: how many to keep at least.
        protect: versions to keep besides that in its own ``latest.json``: pointers elsewhere
            name them.
        foreign: why a version may not be deleted, or None.

    Returns:
        The deleted versions.

    Raises:
        BundleError: its ``latest.json`` is broken, so that nothing may be deleted.
    """
    protected = {read_pointer(directory), *protect}
    surplus = []
    for version in versions(directory)[:-keep]:
        if version in protected:
            continue
        if reason := foreign(directory / version):
            logger.warning(
                "%s is kept: %s. Delete it if nobody needs it", directory / version, reason
            )
            continue
        (directory / version).rename(directory / f".{version}.deleted")
        surplus.append(version)
    broken = [path for path in directory.glob("*.broken") if is_version(path.stem)]
    for aside in sorted(broken)[:-1]:
        aside.rename(directory / f".{aside.stem}.deleted")
    for path in list(directory.glob(".*")):
        if _DELETED.fullmatch(path.name) or (
            _PARTIAL.fullmatch(path.name) and time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS
        ):
            shutil.rmtree(path)
    return surplus
