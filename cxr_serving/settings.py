"""Settings of the service, read from ``CXR_*`` environment variables."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cxr_serving import bundle

ASSET = "convnext_model"


class Settings(BaseSettings):
    """Where the service finds its model, where it listens, and what it accepts."""

    model_config = SettingsConfigDict(env_prefix="CXR_", frozen=True)

    data_root: Path = Field(
        default=Path("data"),
        description="Directory that the pipeline writes to, and the model is found in.",
    )
    follow: Literal["newest", "released"] = Field(
        default="newest",
        description="What serves: the newest materialised model, or the newest released one.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. The service has no access control: keep it on loopback "
        "or behind a proxy that has.",
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes any.")
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|mps|cuda(:\d+)?)$",
        description="Device of the network: cpu, mps, cuda or cuda:<index>.",
    )
    torch_threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of a forward pass. Unset leaves the choice to torch, which sees a "
        "machine's cores but not a container's CPU quota.",
    )
    max_upload_bytes: int = Field(
        default=32 * 2**20,
        ge=1,
        description="Bytes of a request body at most; larger ones are answered with 413.",
    )
    poll_seconds: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds between looks for a newer model.",
    )

    @property
    def directory(self) -> Path:
        """Where the versions lie that are followed, and the pointer to the one that serves."""
        if self.follow == "released":
            return bundle.releases_directory(self.data_root)
        return bundle.asset_directory(self.data_root, ASSET)


def problems(error: ValidationError) -> str:
    """What is wrong in the environment, a line a variable."""
    return "\n".join(
        f"CXR_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
        for problem in error.errors()
    )
