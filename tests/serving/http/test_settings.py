import os
import subprocess
from pathlib import Path

import pytest
from command import CXR, without
from pydantic import ValidationError

from cxr_serving.http.settings import Settings, problems
from cxr_serving.model.preprocessing import MAX_PIXELS


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CXR_"):
            monkeypatch.delenv(name)


def test_defaults_listen_on_loopback_only() -> None:
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.port == 8000
    assert settings.data_root == Path("data")


def test_the_largest_image_that_is_decoded_is_accepted_by_default() -> None:
    default = Settings().max_upload_bytes
    assert default > 2 * MAX_PIXELS + 10_000
    page = (Path(__file__).parents[3] / "docs/settings.md").read_text()
    assert f"| `CXR_MAX_UPLOAD_BYTES` | `{default}` |" in page


def test_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv")
    monkeypatch.setenv("CXR_DATA_ROOT", "~/data")
    monkeypatch.setenv("CXR_KEYS_FILE", "~/keys")
    monkeypatch.setenv("CXR_POLL_SECONDS", "0.5")
    monkeypatch.setenv("CXR_DEVICE", "cuda:1")
    settings = Settings()
    assert (settings.data_root, settings.keys_file) == (Path("/srv/data"), Path("/srv/keys"))
    assert settings.poll_seconds == 0.5
    assert settings.device == "cuda:1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("POLL_SECONDS", "0"),
        ("DEVICE", "gpu"),
        ("MAX_UPLOAD_BYTES", "big"),
        ("DEADLINE_SECONDS", "inf"),
        ("DRAIN_SECONDS", "nan"),
        ("NOTICE_SECONDS", "inf"),
        ("GATE", "drop"),
    ],
)
def test_bad_value_is_rejected(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CXR_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_command_names_the_bad_variable() -> None:
    result = subprocess.run(
        [CXR, "serve"],
        env={**os.environ, "CXR_PORT": "http"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("CXR_PORT: ")
    assert "Traceback" not in result.stderr


def test_data_root_may_be_in_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_DATA_ROOT", "s3://hospital/x-rays/children/")
    monkeypatch.setenv("CXR_CACHE", "/cache")
    settings = Settings()
    assert settings.data_root == "s3://hospital/x-rays/children"
    copy = Path("/cache/service/hospital/x-rays/children")
    assert settings.directory == copy / "models/convnext_model"
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/cache")
    monkeypatch.delenv("CXR_CACHE")
    assert Settings().cache == Path("/home/me/cache/cxr")


@pytest.mark.parametrize(
    "root", ["gs://hospital/cxr", "s3://", "s3:///cxr", "s3://Hospital", "s3://hospital/../cxr"]
)
def test_other_urls_are_rejected(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    monkeypatch.setenv("CXR_DATA_ROOT", root)
    with pytest.raises(ValidationError, match="neither a folder nor s3://bucket/prefix"):
        Settings()


def test_bucket_without_its_client_says_how_to_install_it(tmp_path: Path) -> None:
    environment = {**without(tmp_path, "boto3"), "CXR_DATA_ROOT": "s3://hospital/cxr"}
    done = subprocess.run([CXR, "serve"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'cxr-retraining[s3]'" in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter/2@host:6379",
        "redis://:hunter2@host:port",
        "redis://:hunter2@host/first",
        "redis://host?password=hunter2",
        "http://:hunter2@host",
        "hunter2",
    ],
)
def test_what_is_no_url_of_a_redis_is_rejected_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CXR_RATE_LIMIT", "100/minute")
    monkeypatch.setenv("CXR_RATE_LIMIT_STORAGE", url)
    with pytest.raises(ValidationError, match="as redis://host:6379 is") as caught:
        Settings()
    assert "hunter" not in str(caught.value) + problems(caught.value)


def test_shared_rate_limit_hides_its_password_and_needs_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXR_RATE_LIMIT_STORAGE", "rediss://cxr:hunter%2F2@host:6380/1")
    with pytest.raises(ValidationError, match="set CXR_RATE_LIMIT, too"):
        Settings()
    monkeypatch.setenv("CXR_RATE_LIMIT", "100/minute")
    assert "hunter" not in repr(Settings())


def test_shared_rate_limit_without_its_client_says_how_to_install_it(tmp_path: Path) -> None:
    shared = {"CXR_RATE_LIMIT": "9/minute", "CXR_RATE_LIMIT_STORAGE": "redis://:hunter2@host"}
    environment = {**without(tmp_path, "redis"), **shared}
    done = subprocess.run([CXR, "serve"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "CXR_RATE_LIMIT_STORAGE: needs redis: install the extra `redis` with "
        "pip install 'cxr-retraining[redis]'\n"
    )
