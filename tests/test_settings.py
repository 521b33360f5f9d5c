import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from cxr_assets.settings import SettingsError, load

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CXR_", "HF_TOKEN")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CXR_HF_REPO", "my group/cxr"),
        ("CXR_HF_REPO", f"https://me:{SECRET}@huggingface.co/my-group/cxr"),
        ("CXR_HF_REPO", "my-group/models/cxr"),
        ("CXR_HF_REPO", "cxr"),
        ("CXR_HF_REPO", "my-group/cxr/"),
        ("CXR_HF_REPO", "my-group/cxr.git"),
        ("CXR_SCHEDULE_TIMEZONE", "Mars/Olympus"),
        ("CXR_SCHEDULE_TIMEZONE", "/etc/localtime"),
        ("CXR_MLFLOW_URI", "localhost:5000"),
        ("CXR_MLFLOW_URI", "http://"),
        ("CXR_MLFLOW_URI", f"http://me:{SECRET}@host:99999"),
        ("CXR_MLFLOW_URI", f"postgres://me:{SECRET}@host/mlflow"),
        ("CXR_DAGSTER_URL", f"me:{SECRET}@dagster.local"),
        ("CXR_SERVICE_URL", "serving:8000"),
        ("HF_TOKEN", f"hf_{SECRET}\N{EN DASH}"),
    ],
)
def test_what_only_the_last_step_uses_is_checked_first(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        load()
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_token_that_is_closed_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    token = tmp_path / "token"
    token.touch(0o600)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(token))
    os.seteuid(1000)
    try:
        with pytest.raises(SettingsError, match=rf"{token}: Perm.*: chown -R 1000:0 {token}$"):
            load()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("endpoint", ["", "hub.local", "http//hub.local", "https://hub:port"])
def test_the_hubs_address_is_checked_too(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(SettingsError, match="HF_ENDPOINT"):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CXR_HF_REPO", "my-group/cxr_v2.1"),
        ("CXR_SCHEDULE_TIMEZONE", "Europe/Berlin"),
        ("CXR_MLFLOW_URI", f"https://me:{SECRET}@mlflow.local/team"),
        ("CXR_MLFLOW_URI", "postgresql+psycopg2://cxr@postgres:5432/mlflow"),
        ("CXR_MLFLOW_URI", "sqlite:///mlflow.db"),
        ("CXR_MLFLOW_URI", "/srv/mlruns"),
    ],
)
def test_what_is_valid_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load(), name.removeprefix("CXR_").lower()) == value


def test_the_graph_does_not_load_with_a_wrong_repository() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import cxr_assets.definitions"],
        env={**os.environ, "CXR_HF_REPO": "my group/cxr"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "CXR_HF_REPO must be owner/name, such as my-group/cxr" in done.stderr
