import hashlib
from pathlib import Path

import pytest
from hub import Fault, Hub
from huggingface_hub import constants
from pushing import (
    COMMIT,
    CREATE,
    LARGE_FILES,
    PREUPLOAD,
    REPO,
    TAG,
    TOKEN,
    assert_pushed,
    both_ways,
    rejection,
)

from cxr_assets.release.upload import UnreachableError, UploadError, push


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


@pytest.mark.parametrize(("status", "kind"), [(503, UnreachableError), (403, UploadError)])
def test_only_what_may_pass_is_worth_another_attempt(
    release: Path, hub: Hub, status: int, kind: type[UploadError]
) -> None:
    hub.faults = [Fault(COMMIT, status)]
    with pytest.raises(UploadError) as caught:
        push(release, REPO, TOKEN)
    assert type(caught.value) is kind


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
