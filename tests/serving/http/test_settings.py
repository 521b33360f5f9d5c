import os
import subprocess
from pathlib import Path

import pytest
from command import CXR
from pydantic import ValidationError

from cxr_serving.http.settings import Settings
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
