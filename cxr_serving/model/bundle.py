"""The bundle: what a model asset materialises, and what service, report and release read.

A bundle is a directory ``<models>/<asset>/<version>/`` that never changes once published. It holds
``model.safetensors``, ``config.json`` and ``preprocessor_config.json`` in the format of
transformers, ``model.onnx`` and ``model.int8.onnx`` where exported, ``reference.safetensors`` and
``distribution.json`` where made, the Lightning checkpoint ``best.ckpt``, and ``bundle.json``, the
record defined here, which carries the sha256 of every other file.
``<models>/<asset>/latest.json`` points to the newest one, and says when the pipeline last confirmed
that it is.
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
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from cxr_serving.model import atomic, hashes

RECORD_FILE = "bundle.json"
POINTER_FILE = "latest.json"
WEIGHTS_FILE = "model.safetensors"
CHECKPOINT_FILE = "best.ckpt"
ONNX_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
REFERENCE_FILE = "reference.safetensors"
DISTRIBUTION_FILE = "distribution.json"
HISTORY_FILE = "history.csv"

# Writing one bundle takes minutes at most: what is older was left behind by a process that died.
_LEFTOVER_SECONDS = 86_400
_VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
# Names that only a deletion or a publishing gives.
_DELETED = re.compile(rf"\.{_VERSION.pattern}\.deleted")
_PARTIAL = re.compile(r"\..+\.\d+\.partial")

logger = logging.getLogger(__name__)


class BundleError(Exception):
    """A bundle or a pointer is missing, broken or of an unknown format; the message names it."""


class FormatError(BundleError):
    """A bundle is of another format than this code reads: of another version of the pipeline."""


class Int8(BaseModel):
    """What ``model.int8.onnx`` costs, compared with ``model.onnx`` when it was made.

    Attributes:
        difference: largest difference of a probability on the reference images.
        macro_f1: on all validation images.
        macro_f1_drop: by how much that is less than ``model.onnx`` has on them.
        accepted: whether that is little enough for the file to be in the bundle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: float
    macro_f1: float
    macro_f1_drop: float
    accepted: bool


class BundleRecord(BaseModel):
    """The contents of ``bundle.json``.

    Attributes:
        format_version: of this record; readers reject others.
        asset: the Dagster asset that made it, ``convnext_model`` or ``dinov2_probe``.
        version: ``<UTC compact time>-<first 8 of fingerprint>``.
        fingerprint: sha256 over data version, resolved experiment, code version and base weights.
        classes: class names in index order.
        input_size: side of the square input, in pixels.
        created_at: when the bundle was written, in UTC.
        data_version: version of the processed dataset it was trained on.
        code_version: digest of all code and library versions that shape the result.
        seed: of the training.
        pretrained: identity of the base weights, or null for training from scratch.
        synthetic: whether the images were synthetic images, not radiographs of patients.
        validation: metrics on the validation split, each in 0..1 but for ``loss``.
        temperature: that the logits have been divided by: weights and bias of the saved classifier
            are, those in ``best.ckpt`` are not.
        flip_averaging: whether the logits are the mean over an image and its horizontal flip.
        int8: what the network in 8-bit integers costs, where that was tried.
        dagster_run_id: run that published it, if any.
        mlflow_run_id: MLflow run that holds its curves, if any.
        files: sha256 of every other file, by path inside the bundle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2] = 2
    asset: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: str = Field(pattern=rf"^{_VERSION.pattern}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    classes: tuple[str, ...]
    input_size: int
    created_at: AwareDatetime
    data_version: str
    code_version: str
    seed: int
    pretrained: str | None
    synthetic: bool
    validation: dict[str, float]
    temperature: float = Field(default=1.0, gt=0)
    flip_averaging: bool = False
    int8: Int8 | None = None
    dagster_run_id: str | None = None
    mlflow_run_id: str | None = None
    files: dict[str, str] = {}

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read ``bundle.json`` without looking at the other files.

        Raises:
            BundleError: there is none, or it is not a record.
            FormatError: it is one of another format.
        """
        path = directory / RECORD_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}; materialise the model again, or fetch "
                "the bundle anew"
            ) from error
        except ValidationError as error:
            if any(problem["loc"] == ("format_version",) for problem in error.errors()):
                raise FormatError(
                    f"{path} was written by another version of this code ({_problems(error)}): "
                    "materialise the models again"
                ) from error
            raise BundleError(
                f"{path} is not a bundle record ({_problems(error)}): materialise the model again, "
                "or fetch the bundle anew"
            ) from error


class Pointer(BaseModel):
    """The contents of ``latest.json``.

    Attributes:
        version: that readers should use.
        confirmed_at: when the pipeline last found that it is this one, which a run that reuses a
            model does, too; null of a pointer that an older version of this code wrote.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=rf"^{_VERSION.pattern}$")
    confirmed_at: AwareDatetime | None = None

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The pointer in ``directory``, or None when there is none yet.

        Raises:
            BundleError: it cannot be read or is not one.
        """
        path = directory / POINTER_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise BundleError(
                f"{path} is not a pointer ({_problems(error)}): delete it, then materialise again "
                "what it points to"
            ) from error


def asset_directory(data_root: Path, asset: str) -> Path:
    """Where the bundles of ``asset`` lie below the data root."""
    return data_root / "models" / asset


def releases_directory(data_root: Path) -> Path:
    """Where releases lie below the data root; each is a bundle, too."""
    return data_root / "releases"


def reports_directory(data_root: Path) -> Path:
    """Where reports lie below the data root, each named after the version it is about."""
    return data_root / "reports"


def new_version(fingerprint: str, now: datetime) -> str:
    """The version of something made ``now`` (aware) from ``fingerprint`` (hexadecimal)."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{fingerprint[:8]}"


def is_version(name: str) -> bool:
    """Whether ``name`` has the form of a version."""
    return _VERSION.fullmatch(name) is not None


def publish(
    asset_directory: Path,
    record: BundleRecord,
    write_files: Callable[[Path], BundleRecord | None],
    point: bool = True,
) -> Path:
    """Write a bundle aside, verify it, move it into place and point ``latest.json`` to it.

    Whoever follows the pointer sees the old version or the new one, whole, also when this process
    is killed at any moment.

    Args:
        asset_directory: where the asset's bundles lie.
        record: the record; its ``files`` are filled in here.
        write_files: writes every file but ``bundle.json`` into the directory it is given; may
            return the record with what only the files could tell, which is then published.
        point: whether ``latest.json`` shall name it, so that it is served.

    Returns:
        The published directory.

    Raises:
        BundleError: that version exists already, or the disk is full or read-only; nothing has
            changed then.
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
        shutil.rmtree(leftover)  # of a publishing of the same training that was killed
    partial = asset_directory / f".{record.version}.{os.getpid()}.partial"
    try:
        partial.mkdir()
        told = write_files(partial) or record
        complete = told.model_copy(update={"files": hashes.of(partial, RECORD_FILE)})
        (partial / RECORD_FILE).write_text(complete.model_dump_json(indent=2) + "\n")
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
    """The newest whole bundle with ``fingerprint``, or None; a broken one does not count."""
    for version in reversed(versions(asset_directory)):
        if version.endswith(fingerprint[:8]):
            directory = asset_directory / version
            with suppress(BundleError):
                if verify(directory).fingerprint == fingerprint:
                    return directory
    return None


def foreign(directory: Path) -> str | None:
    """Why a bundle may not be deleted: what its record does not name, or other contents; or None.

    Hidden files are not looked at.
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
    """Delete the oldest versions beyond ``keep``, but none that a pointer names or is not ours.

    A version that is being deleted has lost its name already: none is ever seen in part. What died
    processes left half written or half deleted goes, too, and of the broken ones that were set
    aside all but the newest.

    Args:
        directory: of the versions.
        keep: how many are kept at least.
        protect: versions that pointers elsewhere name, besides its own ``latest.json``.
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
            logger.warning("%s is kept: %s", directory / version, reason)
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


def verify(directory: Path) -> BundleRecord:
    """Check that a bundle is whole: every recorded file there, none besides, all hashes right.

    Hidden files are not looked at.

    Raises:
        BundleError: names the file that is missing, unexpected or altered.
    """
    record = BundleRecord.read(directory)
    if fault := hashes.fault(directory, RECORD_FILE, record.files):
        raise BundleError(f"{fault}: materialise {record.asset} again, or fetch the bundle anew")
    return record


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'contents'}: {problem['msg']}"
        for problem in error.errors()
    )
