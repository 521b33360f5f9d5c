"""Settings of the service, read from ``CXR_*`` environment variables."""

import re
from pathlib import Path
from typing import Any, Literal, Self

import limits
from pydantic import (
    Field,
    RedisDsn,
    Secret,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from cxr_serving.model import CONFIDENCE, bundle, extras, places, processors, store, validation
from cxr_serving.model.places import Place, Root
from cxr_serving.model.preprocessing import MAX_PIXELS
from cxr_serving.model.replica import Replica

ASSET = "convnext_model"

_NO_REDIS = (
    "not the URL of a Redis, as redis://host:6379 is, or with TLS "
    "rediss://user:password@host:6379/0; in a password write % / ? # as %25 %2F %3F %23"
)


class Settings(BaseSettings):
    """Where the service finds its model, where it listens, and what it accepts."""

    model_config = SettingsConfigDict(
        env_prefix="CXR_",
        env_ignore_empty=True,
        frozen=True,
        allow_inf_nan=False,
        # Of a rejected URL, the password.
        hide_input_in_errors=True,
    )

    data_root: Root = Field(
        default=Path("data"),
        description="Directory that the pipeline writes models to and the service reads them from, "
        "or s3://bucket/prefix.",
    )
    cache: Place = Field(
        default_factory=places.default_cache,
        description="Folder for the local copy of models, where the data root is in a bucket.",
    )
    follow: Literal["newest", "released"] = Field(
        default="newest",
        description="Which model serves: the newest materialised one, or the newest released one.",
    )
    pin: str | None = Field(
        default=None,
        description="Version that serves, even when a newer one appears, until it is unpinned.",
    )
    poll_seconds: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds between checks for a newer model.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Beyond loopback, set a key file and put TLS in front.",
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes any.")
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|mps|cuda(:\d+)?)$",
        description="Device of the network: cpu, mps, cuda or cuda:<index>.",
    )
    precision: Literal["fp32", "int8"] = Field(
        default="fp32",
        description="int8 serves the quantised network on a CPU, if the export accepted it.",
    )
    threads: int = Field(
        default_factory=processors.count,
        ge=1,
        description="Threads that compute on a CPU. The default is the CPUs that this process may "
        "use, by its affinity and its container's quota.",
    )
    max_upload_bytes: int = Field(
        default=2 * MAX_PIXELS + 2**20,
        ge=1,
        description="Largest request body in bytes; larger ones are answered with 413. The "
        "default is the largest image that is decoded, uncompressed with 16 bits a pixel, and "
        "1 MiB for headers.",
    )
    max_images: int = Field(default=32, ge=1, description="Most images in a batch request.")
    max_batch: int = Field(default=8, ge=1, description="Most images in a forward pass of torch.")
    max_delay_seconds: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="Longest time that a forward pass waits for images being decoded.",
    )
    max_queue: int = Field(
        default=64,
        ge=1,
        description="Most images in flight or queued; further requests are answered with 429.",
    )
    deadline_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest time from a request's head to its answer; later ones are abandoned.",
    )
    notice_seconds: float = Field(
        default=1.0,
        ge=0,
        description="After SIGTERM: time to keep answering while /ready is 503 for load balancers.",
    )
    drain_seconds: float = Field(
        default=20.0, gt=0, description="After that: longest time to finish the requests in flight."
    )
    confidence: float = Field(
        default=CONFIDENCE,
        ge=0,
        le=1,
        description="An answer is `uncertain` if its most probable class is below this.",
    )
    gate: Literal["flag", "reject"] = Field(
        default="flag",
        description="What happens to an image that the model's gate rejects: it is answered with "
        "`accepted: false` and the reasons, or with the error 422 and the reasons. With `reject`, "
        "no model without a gate serves.",
    )
    keys_file: Place | None = Field(
        default=None,
        description="File of API keys, one line `name key` each; read again when it changes. "
        "Without it everyone who reaches the service may use it.",
    )
    admin_keys_file: Place | None = Field(
        default=None,
        description="File of keys that may pin a model, in the same form. Without it nobody may.",
    )
    traces_headers_file: Place | None = Field(
        default=None,
        description="File of headers that are sent with traces, such as a token: one line "
        "`name: value` each.",
    )
    rate_limit: str | None = Field(
        default=None,
        description="Rate limit per key, or per address without keys: `100/minute`.",
    )
    rate_limit_storage: Secret[RedisDsn] | None = Field(
        default=None,
        description="Redis in which replicas count requests together: `redis://host:6379`. Without "
        "it each counts for itself.",
    )

    @field_validator("device")
    @classmethod
    def _can_compute(cls, value: str) -> str:
        if value != "cpu" and (missing := extras.torch_missing()):
            raise ValueError(f"{value} {missing}")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, value: str | None) -> str | None:
        if value is not None:
            limits.parse(value)
        return value

    @field_validator("rate_limit_storage", mode="wrap")
    @classmethod
    def _is_a_redis(
        cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Secret[RedisDsn] | None:
        if value is None:
            return None
        try:
            storage: Secret[RedisDsn] = validate(value)
        except ValidationError:
            raise ValueError(_NO_REDIS) from None
        url = storage.get_secret_value()
        if url.query or url.fragment or not re.fullmatch("/[0-9]*", url.path or "/"):
            raise ValueError(_NO_REDIS)
        if missing := extras.redis_missing():
            raise ValueError(missing)
        if info.data.get("rate_limit", "") is None:
            raise ValueError("has no rate limit to count for: set CXR_RATE_LIMIT, too")
        return storage

    @field_validator("pin")
    @classmethod
    def _is_a_version(cls, value: str | None) -> str | None:
        if value is not None and not bundle.is_version(value):
            raise ValueError("not a version, as 20260104T031500Z-1a2b3c4d is one")
        return value

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.max_images > self.max_queue:
            raise ValueError("max_images exceeds max_queue: such a batch could never be taken")
        return self

    @property
    def folder(self) -> Path:
        """The data root, or its local copy."""
        # Apart from that of a pipeline, which keeps other versions.
        return places.folder(self.data_root, self.cache / "service")

    @property
    def directory(self) -> Path:
        """The directory of the versions and of the pointer to the one that serves."""
        if self.follow == "released":
            return store.releases_directory(self.folder)
        return store.asset_directory(self.folder, ASSET)

    def replica(self) -> Replica | None:
        """What keeps :attr:`directory` as a bucket has it; None where the data root is a folder.

        Raises:
            RemoteError: the configuration of the client is wrong.
        """
        if isinstance(self.data_root, Path):
            return None
        return Replica(self.data_root, self.folder, self.directory)


def problems(error: ValidationError) -> str:
    """What is wrong in the environment, one line per variable."""
    return "\n".join(
        validation.problems(error, lambda place: "_".join(["CXR", *map(str, place)]).upper())
    )
