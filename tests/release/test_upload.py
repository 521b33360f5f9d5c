import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from hub import Hub
from huggingface_hub import constants

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.release.release import write_release
from cxr_assets.release.upload import UploadError, push
from cxr_serving.bundle import BundleError

REPO = "my-group/cxr"
TOKEN = "hf_" + "s3cret" * 6


@pytest.fixture
def release(reported: Layout) -> Path:
    experiment = compose("demo", ["seed=3", f"data.image_size={tiny.SIZE}"])
    return write_release(reported, REPO, experiment)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that takes large files by LFS, as hubs without Xet storage do."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub(TOKEN) as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_token_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test of this module does, at the most talkative level."""
    caplog.set_level(logging.DEBUG)
    yield
    assert TOKEN not in caplog.text


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def refusal(directory: Path, repo: str, token: str, endpoint: str) -> str:
    """The message of the failure, once its whole traceback is known not to hold the token."""
    with pytest.raises(UploadError) as caught:
        push(directory, repo, token, endpoint)
    assert token not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def test_the_hub_stores_the_release_byte_for_byte(release: Path, hub: Hub) -> None:
    url = push(release, REPO, TOKEN, hub.url)
    repository = hub.repositories[REPO]
    assert repository.private
    assert repository.files == {".gitattributes": b"", **contents(release)}
    assert repository.commits == [f"Release {release.name}"]
    assert repository.tags == {release.name: f"{1:040x}"}
    assert url == f"{hub.url}/{REPO}/commit/{1:040x}"


def test_an_unchanged_release_is_not_sent_again(release: Path, hub: Hub) -> None:
    first = push(release, REPO, TOKEN, hub.url)
    sent = len(hub.uploads)
    assert push(release, REPO, TOKEN, hub.url) == first
    assert len(hub.uploads) == sent
    assert len(hub.repositories[REPO].commits) == 1


def test_what_the_release_lacks_leaves_the_main_branch(release: Path, hub: Hub) -> None:
    push(release, REPO, TOKEN, hub.url)
    hub.repositories[REPO].files["old_figure.png"] = b"old"
    push(release, REPO, TOKEN, hub.url)
    assert hub.repositories[REPO].files.keys() == {".gitattributes", *contents(release)}


def test_a_push_that_broke_off_is_taken_up_again(release: Path, hub: Hub) -> None:
    hub.answers[f"/api/models/{REPO}/commit"] = (400, "no")
    assert "answered 400" in refusal(release, REPO, TOKEN, hub.url)
    sent = sorted(hub.uploads)
    assert sent
    assert not hub.repositories[REPO].commits
    hub.answers.clear()
    push(release, REPO, TOKEN, hub.url)
    assert sorted(hub.uploads) == sent
    assert hub.repositories[REPO].files == {".gitattributes": b"", **contents(release)}


def test_a_wrong_token_is_named_but_not_told(release: Path, hub: Hub) -> None:
    message = refusal(release, REPO, "hf_" + "wrong" * 6, hub.url)
    assert "the token is not valid (401)" in message
    assert str(release) in message
    assert not hub.repositories


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "write permission"), (404, "check CXR_HF_REPO"), (400, "answered 400")],
)
def test_a_refusal_says_what_to_do(release: Path, hub: Hub, status: int, told: str) -> None:
    hub.answers["/api/"] = (status, f"said with {TOKEN} in it")
    assert told in refusal(release, REPO, TOKEN, hub.url)


def test_no_network_is_named(release: Path) -> None:
    with Hub(TOKEN) as closed:
        pass
    message = refusal(release, REPO, TOKEN, closed.url)
    assert f"{closed.url} could not be reached" in message
    assert "materialise hf_release again" in message


def test_a_broken_release_is_not_sent(release: Path, hub: Hub) -> None:
    (release / "README.md").write_text("# something else")
    with pytest.raises(BundleError, match=r"README\.md does not match"):
        push(release, REPO, TOKEN, hub.url)
    assert not hub.requests
