"""The asset ``hf_release`` against a stand-in of the Hub, by the command line."""

import json

import dagster as dg
import pytest
from hub import Hub

from cxr_serving import bundle

REPO = "my-group/cxr"
TOKEN = "hf_" + "s3cret" * 6


@pytest.fixture
def hub():
    with Hub(TOKEN) as hub:
        yield hub


# As demos are made from phantoms.
FORCE = json.dumps({"ops": {"hf_release": {"config": {"force": True}}}}, separators=(",", ":"))


def push(workplace, hub: Hub, token: str, selection: str = f"hf_release --config-json {FORCE}"):
    return workplace.materialize(
        selection,
        CXR_HF_REPO=REPO,
        HF_TOKEN=token,
        HF_ENDPOINT=hub.url,
        HF_HUB_DISABLE_XET="1",
    )


def metadata(workplace) -> dict:
    with dg.DagsterInstance.from_config(str(workplace.home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("hf_release"))
        return dict(event.asset_materialization.metadata)


def test_a_release_reaches_the_hub_and_the_token_nothing_else(trained, hub):
    (trained.layout.releases / "latest.json").unlink()
    finished = push(trained, hub, TOKEN, "hf_release")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert hub.requests == [], "made from phantoms, and not forced"
    assert "made from phantoms" in metadata(trained)["hub"].value
    assert metadata(trained)["released"].value is False
    assert bundle.read_pointer(trained.layout.releases) is None

    finished = push(trained, hub, TOKEN)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert bundle.read_pointer(trained.layout.releases) in hub.repositories[REPO].tags
    release = trained.layout.releases / bundle.read_pointer(trained.layout.releases)
    stored = hub.repositories[REPO].files
    assert stored["model.safetensors"] == (release / "model.safetensors").read_bytes()
    assert stored["README.md"] == (release / "README.md").read_bytes()
    assert metadata(trained)["hub"].value.startswith(hub.url)
    assert TOKEN not in finished.stdout + finished.stderr
    for path in trained.root.rglob("*"):
        if path.is_file() and path.suffix in (".db", ".err", ".out", ".json", ".md", ""):
            assert TOKEN.encode() not in path.read_bytes(), path


def test_a_refused_push_fails_the_asset_and_leaves_the_release_whole(trained, hub):
    before = bundle.read_pointer(trained.layout.releases)
    (trained.layout.releases / "latest.json").unlink()
    finished = push(trained, hub, "hf_" + "wrong" * 7)
    assert finished.returncode != 0
    assert "the token is not valid (401)" in finished.stderr
    release = trained.layout.releases / before
    bundle.verify(release)
    assert bundle.read_pointer(trained.layout.releases) is None
