"""Pushes to a hub, and what has to be true after them."""

import traceback
from pathlib import Path

import pytest
from hub import Hub
from releases import contents

from cxr_assets.release.upload import UploadError, push
from cxr_serving.model import store

REPO = "my-group/cxr"
TOKEN = "hf_" + "s3cret" * 6

CREATE = "/api/repos/create"
PREUPLOAD = f"/api/models/{REPO}/preupload"
LARGE_FILES = "/storage/(lfs|xet/v1/xorbs)"
COMMIT = f"/api/models/{REPO}/commit"
TAG = f"/api/models/{REPO}/tag"

both_ways = pytest.mark.parametrize("hub", ["xet", "lfs"], indirect=True)


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
