import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from hub import XET_TOKEN, Hub
from huggingface_hub import constants
from huggingface_hub.utils import _http, _xet
from pushing import REPO, TOKEN

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.release import upload
from cxr_assets.release.release import write_release


@pytest.fixture(scope="module")
def written(untouched_synthetic: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written") / "synthetic_images"
    layout = Layout(Path(shutil.copytree(untouched_synthetic.root, root)))
    overrides = ["seed=3", f"data.image_size={tiny.SIZE}", *tiny.LIMITS]
    experiment = compose("demo", overrides)
    return write_release(layout, REPO, experiment)


@pytest.fixture
def release(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / written.name))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where hf_xet keeps its cache and its log; it waits only shortly before it tries again."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        patch.delenv("HF_XET_CACHE", raising=False)
        patch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "1ms")
        patch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())
        yield home


@pytest.fixture
def hub(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """A hub; large files are sent by Xet, as the client does unless that is disabled."""
    by_lfs = getattr(request, "param", "xet") == "lfs"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", by_lfs)
    with Hub(TOKEN) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the push, and the client within it, would have waited to try again."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append)
    monkeypatch.setattr(upload, "time", clock)
    monkeypatch.setattr(_http, "time", clock)
    return waits


@pytest.fixture(autouse=True)
def no_token_is_revealed(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[None]:
    """Whatever a test of this module does, at the most talkative level of every logger."""
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="huggingface_hub")
    yield
    records = caplog.get_records("call")
    visible = [logging.Formatter().format(record) + repr(vars(record)) for record in records]
    visible += capfd.readouterr()
    visible += [path.read_text(errors="replace") for path in home.rglob("*") if path.is_file()]
    assert not [text for text in visible if TOKEN in text or XET_TOKEN in text]
