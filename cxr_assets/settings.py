"""The pipeline's environment variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from cxr_assets.layout import Layout


class Settings(BaseSettings):
    """Read from ``CXR_*``; each has a default that works on a fresh machine."""

    model_config = SettingsConfigDict(env_prefix="CXR_", env_ignore_empty=True)

    data_root: Path = Field(Path("data"), description="Folder below which everything is written.")
    experiment: str = Field("demo", description="Preset: demo, scratch or full.")
    overrides: str = Field(
        "", description="Space-separated Hydra overrides: seed=7 trainer.max_epochs=5"
    )
    mlflow_uri: str | None = Field(
        None, description="MLflow tracking URI; a SQLite file below the data root when unset."
    )
    schedule_timezone: str = Field("UTC", description="Timezone of the weekly schedule.")
    hf_repo: str | None = Field(
        None, description="Hub repository to push releases to, such as my-group/cxr."
    )

    @property
    def layout(self) -> Layout:
        """Where things lie."""
        return Layout(self.data_root.absolute())
