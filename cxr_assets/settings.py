"""The pipeline's environment variables."""

from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from huggingface_hub import constants, get_token
from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from cxr_assets.layout import Layout
from cxr_assets.notifications import Receivers
from cxr_assets.progress import remedy
from cxr_assets.ranges import is_repository
from cxr_serving.model import places
from cxr_serving.model.places import Place, Root

# The databases that MLflow takes instead of a server: sqlite, postgresql+psycopg2, ...
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_OTHER_STORES = ("", "file", "databricks", "uc")


class SettingsError(ValueError):
    """An environment variable is invalid; the message names it but never its value."""


class Settings(BaseSettings):
    """Read from ``CXR_*``; every setting has a default that works on a fresh machine."""

    # A value may hold a password.
    model_config = SettingsConfigDict(
        env_prefix="CXR_", env_ignore_empty=True, hide_input_in_errors=True
    )

    data_root: Root = Field(
        Path("data"),
        description="Folder that holds everything the pipeline writes, or s3://bucket/prefix for "
        "what is shared.",
    )
    cache: Place = Field(
        default_factory=places.default_cache,
        description="Folder for everything else, where the data root is in a bucket.",
    )
    experiment: str = Field("demo", description="Preset: demo, scratch, distilled or full.")
    overrides: str = Field(
        "",
        description="Hydra overrides, separated by spaces and quoted as in a shell: "
        "seed=7 data.folder='/data/my images'",
    )
    mlflow_uri: str | None = Field(
        None, description="MLflow tracking URI; a SQLite file below the data root when unset."
    )
    schedule_timezone: str = Field("UTC", description="Time zone of the weekly schedule.")
    hf_repo: str | None = Field(
        None, description="Hub repository to push releases to, such as my-group/cxr."
    )
    notify_urls: SecretStr | None = Field(
        None,
        description="Who is notified of failures: apprise addresses, separated by white space.",
    )
    notify_file: Place | None = Field(
        None, description="The same from a text file, one address per line."
    )
    dagster_url: str = Field(
        "http://localhost:3000", description="Address of Dagster's UI, for links in messages."
    )
    service_url: str | None = Field(
        None, description="Address of the service whose images are watched for drift."
    )

    step_pods: str | None = Field(
        None,
        description="Each step runs in a pod of its own on Kubernetes: settings of dagster-k8s' "
        "executor, as YAML.",
    )

    @field_validator("hf_repo")
    @classmethod
    def _is_a_repository(cls, repo: str | None) -> str | None:
        if repo is not None and not is_repository(repo):
            raise ValueError(
                "CXR_HF_REPO must be owner/name, such as my-group/cxr: letters, digits, '.', '_' "
                "and '-', not an address"
            )
        return repo

    @field_validator("dagster_url", "service_url")
    @classmethod
    def _is_an_address(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is not None and not _is_address(url):
            raise ValueError(
                f"CXR_{str(info.field_name).upper()} must be an address, such as "
                "http://localhost:3000"
            )
        return url and url.rstrip("/")

    @field_validator("schedule_timezone")
    @classmethod
    def _is_a_timezone(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(
                "CXR_SCHEDULE_TIMEZONE must be an IANA time zone, such as Europe/Berlin"
            ) from error
        return timezone

    @field_validator("mlflow_uri")
    @classmethod
    def _is_a_store(cls, uri: str | None) -> str | None:
        if uri is not None and not _is_address(uri):
            scheme = urlsplit(uri).scheme.split("+")[0]
            if scheme in ("http", "https") or scheme not in (*_DATABASES, *_OTHER_STORES):
                raise ValueError(
                    "CXR_MLFLOW_URI must be the address of an MLflow server or database, such as "
                    "http://localhost:5000"
                )
        return uri

    @property
    def layout(self) -> Layout:
        """Paths below the data root."""
        return self.layout_of(self.data_root)

    def layout_of(self, root: Path | str) -> Layout:
        """Paths below another data root: a folder, or the URL of a bucket.

        Raises:
            ValueError: it is another kind of URL.
        """
        root = places.root(root)
        folder = places.folder(root, self.cache / "pipeline").absolute()
        return Layout(folder, root if isinstance(root, str) else None)

    @property
    def receivers(self) -> Receivers:
        """Who is notified."""
        urls = self.notify_urls.get_secret_value() if self.notify_urls else None
        return Receivers(urls, self.notify_file)


def load() -> Settings:
    """The checked settings; also checks the variables that the hub's client reads itself.

    Raises:
        SettingsError: names each invalid variable, or a file of the hub's token that is closed.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError(
            "; ".join(
                str(problem["ctx"]["error"])
                if problem["type"] == "value_error"
                else f"CXR_{str(problem['loc'][0]).upper()}: {problem['msg']}"
                for problem in error.errors()
            )
        ) from None
    if not _is_address(constants.ENDPOINT):
        raise SettingsError("HF_ENDPOINT must be an address, such as https://huggingface.co")
    try:
        token = get_token()
    except OSError as error:
        raise SettingsError(remedy(error, Path(constants.HF_TOKEN_PATH))) from error
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError("HF_TOKEN contains characters that no token has: copy it again")
    return settings


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(
            parts.scheme in ("http", "https")
            and parts.hostname
            and (parts.port is None or parts.port)
            and not set(text) & set(" \t\n")
        )
    except ValueError:  # the port is not a number
        return False
