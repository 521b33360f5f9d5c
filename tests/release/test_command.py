import getpass

import pytest
from releases import SYNTHETIC

import cxr
from cxr_assets.layout import Layout
from cxr_assets.release.release import write_release
from cxr_serving.model import store


def promote(*arguments: str) -> int | str | None:
    """The status, or the error."""
    with pytest.raises(SystemExit) as stop:
        cxr.main(["release", "promote", *arguments])
    return stop.value.code


def test_a_person_promotes_a_release_and_sees_what_was_done(
    reported: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXR_DATA_ROOT", str(reported.root))
    monkeypatch.delenv("CXR_HF_REPO", raising=False)
    version = write_release(reported, None, SYNTHETIC).name
    assert promote(version, "--because", "two radiologists read 200 images") == 0
    assert store.read_pointer(reported.releases) == version
    assert capsys.readouterr().out.splitlines() == [
        f"{version} is promoted by {getpass.getuser()}: two radiologists read 200 images",
        "not pushed: CXR_HF_REPO is not set",
    ]
    assert str(promote(version, "--because", "again")).startswith(f"error: {version} is released")


def test_a_promotion_needs_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert promote("20260101T000000Z-00000000") == 2
    assert "--because" in capsys.readouterr().err
