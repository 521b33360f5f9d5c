import hashlib
import json
from pathlib import Path

import pytest
from hub import Fault, Hub, Repository
from huggingface_hub import constants
from pushing import COMMIT, CREATE, REPO, TAG, TOKEN, assert_pushed, both_ways, rejection
from releases import contents

from cxr_assets.release.upload import push
from cxr_serving.model import bundle
from cxr_serving.model.bundle import BundleError


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


def test_a_broken_release_is_not_sent(release: Path, hub: Hub) -> None:
    (release / "README.md").write_text("# something else")
    with pytest.raises(BundleError, match=r"README\.md does not match"):
        push(release, REPO, TOKEN)
    assert not hub.requests
