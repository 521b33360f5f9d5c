"""The bundle: what a model asset materialises, and what service, report and release read.

A bundle is a directory ``<models>/<asset>/<version>/`` that never changes once published. It holds
``model.safetensors``, ``config.json`` and ``preprocessor_config.json`` in the format of
transformers, ``reference.safetensors``, the Lightning checkpoint ``best.ckpt``, and
``bundle.json``, the record defined here, which carries the sha256 of every other file. That of the
main model also holds ``model.onnx``, ``model.int8.onnx``, ``distribution.json`` and
``gate.safetensors``.
``<models>/<asset>/latest.json`` points to the newest one, and says when the pipeline last confirmed
that it is.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from cxr_serving.model.dataset import Draw
from cxr_serving.model.validation import problems

RECORD_FILE = "bundle.json"
POINTER_FILE = "latest.json"
WEIGHTS_FILE = "model.safetensors"
CHECKPOINT_FILE = "best.ckpt"
ONNX_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
REFERENCE_FILE = "reference.safetensors"
DISTRIBUTION_FILE = "distribution.json"
GATE_FILE = "gate.safetensors"
HISTORY_FILE = "history.csv"

VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


class BundleError(Exception):
    """A bundle or a pointer is missing, broken or of an unknown format; the message names it."""


class FormatError(BundleError):
    """A bundle has a format that this code does not read: another version of it made the bundle."""


class Int8(BaseModel):
    """What ``model.int8.onnx`` costs, compared with ``model.onnx`` when it was made.

    Attributes:
        difference: largest difference of a probability on the reference images.
        macro_f1: on all validation images.
        macro_f1_drop: how much higher that of ``model.onnx`` is on the same images.
        accepted: whether the drop is small enough for the file to be in the bundle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: float
    macro_f1: float
    macro_f1_drop: float
    accepted: bool


class Rejections(BaseModel):
    """How many of some images a gate rejects.

    Attributes:
        rejected: number of images rejected.
        images: number of images.
        interval: of the share, 95 %, by Wilson (doi.org/10.1080/01621459.1927.10502953); None
            without an image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rejected: int
    images: int
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, rejected: int, images: int) -> Self:
        """With the interval."""
        if not images:
            return cls(rejected=0, images=0, interval=None)
        z, share = 1.959964, rejected / images
        centre = share + z**2 / (2 * images)
        half = z * (share * (1 - share) / images + z**2 / (4 * images**2)) ** 0.5
        low, high = ((centre + sign * half) / (1 + z**2 / images) for sign in (-1, 1))
        return cls(rejected=rejected, images=images, interval=(max(low, 0.0), min(high, 1.0)))


class GateCheck(BaseModel):
    """One reason for which a gate rejects images.

    Attributes:
        threshold: of the check's score, above which it rejects; None where it could not be fitted,
            and does not reject.
        validation: validation images that it rejects.
        found: altered validation images of this kind that it rejects; None of a check that is not
            learnt from altered images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float | None
    validation: Rejections
    found: Rejections | None


class GateRecord(BaseModel):
    """What the gate rejects, measured when it was made.

    Attributes:
        training: number of training images it was fitted on.
        validation: validation images that it rejects, for any reason.
        checks: by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: int
    validation: Rejections
    checks: dict[str, GateCheck]


class Provenance(BaseModel):
    """What a bundle is and where it comes from; a report on it says the same.

    Attributes:
        asset: the Dagster asset that made it, ``convnext_model`` or ``dinov2_probe``.
        version: ``<UTC compact time>-<first 8 of fingerprint>``.
        fingerprint: sha256 over data version, resolved experiment, code version and base weights.
        input_size: side of the square input, in pixels.
        created_at: when the bundle was written, in UTC.
        data_version: version of the processed dataset it was trained on.
        code_version: digest of all code and library versions that shape the result.
        seed: of the training.
        pretrained: identity of the base weights, or null for training from scratch.
        teacher: identity of the weights of the network whose embeddings it learnt, too, or null
            without distillation; the bundle does not hold them, and needs them for nothing.
        synthetic: whether the images are synthetic, not radiographs of patients.
        temperature: that the logits have been divided by: weights and bias of the saved classifier
            are, those in ``best.ckpt`` are not.
        flip_averaging: whether the logits are the mean over an image and its horizontal flip.
        int8: what the network in 8-bit integers costs, if it was measured.
        gate: what the gate rejects; None where the bundle has none.
        dagster_run_id: run that published it, if any.
        mlflow_run_id: MLflow run that holds its curves, if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: str = Field(pattern=rf"^{VERSION.pattern}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    input_size: int
    created_at: AwareDatetime
    data_version: str
    code_version: str
    seed: int
    pretrained: str | None
    teacher: str | None = None
    synthetic: bool
    temperature: float = Field(default=1.0, gt=0)
    flip_averaging: bool = False
    int8: Int8 | None = None
    gate: GateRecord | None = None
    dagster_run_id: str | None = None
    mlflow_run_id: str | None = None


class BundleRecord(Provenance):
    """The contents of ``bundle.json``.

    Attributes:
        format_version: of this record; readers reject others.
        classes: class names in index order.
        draw: how the patients of ``split.csv`` were drawn, if that is known.
        validation: metrics on the validation split, all in 0..1 except ``loss``.
        files: sha256 of every other file, by path inside the bundle.
    """

    format_version: Literal[3] = 3
    classes: tuple[str, ...]
    draw: Draw | None = None
    validation: dict[str, float]
    files: dict[str, str] = {}

    @property
    def provenance(self) -> Provenance:
        """What a report on the bundle says of it."""
        return Provenance.model_validate(self.model_dump(include=set(Provenance.model_fields)))

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read ``bundle.json`` alone; :func:`store.verify` checks the other files, too.

        Raises:
            BundleError: there is none, or it is not a record.
            FormatError: it is a record of another format.
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
            found = "; ".join(problems(error))
            if any(problem["loc"] == ("format_version",) for problem in error.errors()):
                raise FormatError(
                    f"{path} was written by another version of this code ({found}): "
                    "materialise the models again"
                ) from error
            raise BundleError(
                f"{path} is not a bundle record ({found}): materialise the model again, "
                "or fetch the bundle anew"
            ) from error


class Pointer(BaseModel):
    """The contents of ``latest.json``.

    Attributes:
        version: the version that readers should use.
        confirmed_at: when a pipeline run last made or reused this version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=rf"^{VERSION.pattern}$")
    confirmed_at: AwareDatetime

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The pointer in ``directory``, or None when there is none yet.

        Raises:
            BundleError: it cannot be read or is not one.
        """
        path = directory / POINTER_FILE
        try:
            return cls.parse(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}; this user needs the right to read "
                "it and to enter its folders"
            ) from error

    @classmethod
    def parse(cls, content: bytes, place: Path | str) -> Self:
        """The pointer that a file or an object at ``place`` holds.

        Raises:
            BundleError: it is not one.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            found = "; ".join(problems(error))
            raise BundleError(
                f"{place} is not a pointer ({found}): delete it, then materialise again "
                "what it points to"
            ) from error


def new_version(fingerprint: str, now: datetime) -> str:
    """The version of something made ``now`` (aware) from ``fingerprint`` (hexadecimal)."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{fingerprint[:8]}"


def is_version(name: str) -> bool:
    """Whether ``name`` has the form of a version."""
    return VERSION.fullmatch(name) is not None
