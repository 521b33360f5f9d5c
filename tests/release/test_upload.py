import hashlib
import json
import logging
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from hub import XET_TOKEN, Fault, Hub, Repository
from huggingface_hub import constants
from huggingface_hub.utils import _http, _xet

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.release import upload
from cxr_assets.release.release import write_release
from cxr_assets.release.upload import UploadError, push
from cxr_serving.model import bundle, store
from cxr_serving.model.bundle import BundleError

REPO = "my-group/cxr"
TOKEN = "hf_" + "s3cret" * 6

CREATE = "/api/repos/create"
PREUPLOAD = f"/api/models/{REPO}/preupload"
LARGE_FILES = "/storage/(lfs|xet/v1/xorbs)"
COMMIT = f"/api/models/{REPO}/commit"
TAG = f"/api/models/{REPO}/tag"

both_ways = pytest.mark.parametrize("hub", ["xet", "lfs"], indirect=True)


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


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def assert_pushed(directory: Path, hub: Hub) -> None:
    """The hub has the release byte for byte, in one commit and a tag, and got nothing twice."""
    repository = hub.repositories[REPO]
    assert repository.files == {".gitattributes": b"", **contents(directory)}
    assert repository.commits == [f"Release {directory.name}"]
    assert repository.tags == {directory.name: repository.head}
    assert hub.uploads
    assert len(set(hub.uploads)) == len(hub.uploads)


def rejection(directory: Path, token: str = TOKEN) -> str:
    """The message of a failure that tells no token and leaves the release whole."""
    with pytest.raises(UploadError) as caught:
        push(directory, REPO, token)
    assert token not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    store.verify(directory)
    message = str(caught.value)
    assert str(directory) in message
    assert "materialise hf_release again" in message
    return message


@both_ways
def test_the_hub_stores_the_release_byte_for_byte(release: Path, hub: Hub) -> None:
    url = push(release, REPO, TOKEN)
    assert_pushed(release, hub)
    assert hub.repositories[REPO].private
    assert url == f"{hub.url}/{REPO}/commit/{1:040x}"
    ways = {path.split("/")[2] for _, path in hub.requests if path.startswith("/storage/")}
    assert ways == {"lfs" if constants.HF_HUB_DISABLE_XET else "xet"}


@both_ways
def test_an_unchanged_release_is_not_sent_again(release: Path, hub: Hub) -> None:
    first = push(release, REPO, TOKEN)
    hub.faults = [Fault("/storage", 400), Fault(COMMIT, 400)]
    assert push(release, REPO, TOKEN) == first
    assert_pushed(release, hub)


def earlier(release: Path, more: dict[str, bytes]) -> dict[str, bytes]:
    """What the hub holds after a release that had further files, and another report."""
    record = json.loads((release / bundle.RECORD_FILE).read_bytes())
    files = {**contents(release), "metrics.json": b"{}", **more}
    record["files"] |= {
        name: hashlib.sha256(files[name]).hexdigest() for name in ("metrics.json", *more)
    }
    return {**files, bundle.RECORD_FILE: json.dumps(record).encode()}


def test_only_what_an_earlier_release_put_there_leaves_the_main_branch(
    release: Path, hub: Hub
) -> None:
    more = {"old_figure.png": b"old", "old.md": b"old", "edited.md": b"old", "edited.png": b"old"}
    theirs = {"LICENSE": b"theirs", "weights/their.safetensors": b"theirs"}
    edited = {"edited.md": b"edited", "edited.png": b"edited", "README.md": b"edited"}
    hub.repositories[REPO] = Repository(private=False)
    hub.repositories[REPO].files |= earlier(release, more) | theirs | edited
    push(release, REPO, TOKEN)
    assert hub.repositories[REPO].files == {
        ".gitattributes": b"",
        **theirs,
        **edited,
        **contents(release),
    }
    assert len(hub.repositories[REPO].commits) == 1


def test_another_models_files_are_not_overwritten(release: Path, hub: Hub) -> None:
    theirs = {
        ".gitattributes": b"theirs",
        "README.md": b"# made by the hub's page",
        "model.safetensors": b"theirs",
        "config.json": b"{}",
        bundle.RECORD_FILE: b'{"bundle": "of a web page"}',
    }
    hub.repositories[REPO] = Repository(private=True, files=dict(theirs))
    message = rejection(release)
    assert "holds bundle.json, config.json, model.safetensors, which no release put" in message
    assert "set CXR_HF_REPO to another repository" in message
    assert hub.repositories[REPO].files == theirs
    for name in ("model.safetensors", "config.json", bundle.RECORD_FILE):
        del hub.repositories[REPO].files[name]
    push(release, REPO, TOKEN)
    assert hub.repositories[REPO].files == {".gitattributes": b"theirs", **contents(release)}


def test_a_repository_that_is_there_needs_no_right_to_create_one(release: Path, hub: Hub) -> None:
    hub.repositories[REPO] = Repository(private=False)
    hub.faults = [Fault(CREATE, 403)]
    push(release, REPO, TOKEN)
    assert_pushed(release, hub)
    assert not hub.repositories[REPO].private


@pytest.mark.parametrize(
    ("where", "status", "reported"),
    [
        ("/api/", 403, "it needs the write permission"),
        ("/api/", 404, "check CXR_HF_REPO"),
        (f"/api/models/{REPO}/xet-write-token", 401, "the token is not valid (401): set HF_TOKEN"),
        (COMMIT, 400, "answered 400"),
        (COMMIT, 401, "the token is not valid (401): set HF_TOKEN"),
        (COMMIT, 403, "it needs the write permission"),
        (COMMIT, 409, "look at its commits"),
        (TAG, 403, "it needs the write permission"),
    ],
)
def test_a_rejection_says_what_to_do_and_a_retry_sends_the_rest(
    release: Path, hub: Hub, waits: list[float], where: str, status: int, reported: str
) -> None:
    hub.faults = [Fault(where, status, f"said with {TOKEN} in it")]
    assert reported in rejection(release)
    assert not waits
    hub.faults.clear()
    push(release, REPO, TOKEN)
    assert_pushed(release, hub)


def test_a_wrong_token_is_named_but_not_revealed(release: Path, hub: Hub) -> None:
    assert "the token is not valid (401)" in rejection(release, "hf_" + "wrong" * 6)
    assert not hub.repositories


def test_what_someone_else_pushed_meanwhile_is_not_undone(
    release: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[REPO] = theirs = Repository(private=True)
    preupload = hub._preupload

    def overtaken(*request: object) -> object:
        theirs.files["their.md"] = b"theirs"
        theirs.commits.append("Theirs")
        return preupload(*request)

    monkeypatch.setattr(hub, "_preupload", overtaken)
    assert f"someone else changed {REPO}" in rejection(release)
    assert theirs.commits == ["Theirs"]
    assert theirs.files == {".gitattributes": b"", "their.md": b"theirs"}
    assert not theirs.tags


@both_ways
@pytest.mark.parametrize("status", [503, None], ids=["ailing", "breaking-off"])
def test_a_fault_of_the_storage_that_passes_is_no_failure(
    release: Path, hub: Hub, status: int | None
) -> None:
    hub.faults = [Fault(LARGE_FILES, status, times=1)]
    push(release, REPO, TOKEN)
    assert hub.faults[0].times == 0
    assert_pushed(release, hub)


@pytest.mark.parametrize(
    ("where", "status"),
    [(CREATE, 503), (CREATE, None), (PREUPLOAD, 500), (COMMIT, 429), (COMMIT, None), (TAG, None)],
)
def test_a_fault_of_the_hub_that_passes_is_no_failure(
    release: Path, hub: Hub, where: str, status: int | None
) -> None:
    hub.faults = [Fault(where, status, times=1)]
    push(release, REPO, TOKEN)
    assert hub.faults[0].times == 0
    assert_pushed(release, hub)


@pytest.mark.parametrize("where", [COMMIT, TAG])
def test_what_was_done_is_not_done_twice_when_the_answer_is_lost(
    release: Path, hub: Hub, where: str
) -> None:
    hub.faults = [Fault(where, 500, times=1, done=True)]
    push(release, REPO, TOKEN)
    assert_pushed(release, hub)


@pytest.mark.parametrize(
    ("where", "status", "reported"),
    [
        (LARGE_FILES, 500, "answered 500"),
        (COMMIT, None, "could not be reached, or the connection broke"),
        (TAG, None, "could not be reached, or the connection broke"),
    ],
)
def test_a_fault_that_stays_is_a_failure_that_a_retry_makes_good(
    release: Path, hub: Hub, waits: list[float], where: str, status: int | None, reported: str
) -> None:
    hub.faults = [Fault(where, status)]
    assert f"{hub.url} {reported}" in rejection(release)
    assert [wait for wait in waits if wait in (5, 30)] == [5, 30]
    hub.faults.clear()
    push(release, REPO, TOKEN)
    assert_pushed(release, hub)


@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
@pytest.mark.parametrize(
    ("status", "reported"),
    [(None, "could not be reached, or the connection broke"), (403, "write permission")],
)
def test_only_the_file_that_broke_off_is_sent_again(
    release: Path, hub: Hub, status: int | None, reported: str
) -> None:
    weights = hashlib.sha256((release / "model.safetensors").read_bytes()).hexdigest()
    hub.faults = [Fault(f"/storage/lfs/{weights}", status)]
    assert reported in rejection(release)
    sent = list(hub.uploads)
    assert sent
    hub.faults.clear()
    push(release, REPO, TOKEN)
    # Which of the others had arrived when it was rejected is a matter of threads.
    assert weights not in sent
    assert weights in hub.uploads
    assert len(set(hub.uploads)) == len(hub.uploads)
    assert_pushed(release, hub)


def test_no_network_is_named(
    release: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub(TOKEN) as closed:
        monkeypatch.setattr(constants, "ENDPOINT", closed.url)
    message = rejection(release)
    assert f"{closed.url} could not be reached" in message
    assert "Connection refused" in message
    assert waits == [5, 30]


def test_a_broken_release_is_not_sent(release: Path, hub: Hub) -> None:
    (release / "README.md").write_text("# something else")
    with pytest.raises(BundleError, match=r"README\.md does not match"):
        push(release, REPO, TOKEN)
    assert not hub.requests
