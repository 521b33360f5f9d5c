import signal
import socket
import time

import machines
import pytest
import s3
from machines import quiet

from cxr_assets import lease
from cxr_serving.model import remote
from cxr_serving.model.remote import Bucket
from cxr_serving.model.remote_errors import UnreachableError

KEY = machines.LOCK
OBJECT = f"cxr/{KEY}"


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_lease_of_a_process_that_is_killed_or_suspended_expires(
    bucket: Bucket, storage: s3.Storage, number: signal.Signals
) -> None:
    lines: list[str] = []
    with machines.process("hold", lease.SECONDS) as first:
        first.send_signal(number)
        renewed = storage.written(OBJECT)
        with lease.held(bucket, KEY, "a model is trained", lines.append) as second:
            assert (storage.written(OBJECT) - renewed).total_seconds() >= lease.SECONDS
            holder = f"{socket.gethostname()}, process {first.pid}"
            assert lines == [f"a model is trained by {holder}: waiting for {s3.URL}/{KEY}"]
            # The first one goes on as if it had it still.
            first.send_signal(signal.SIGCONT)
            _, error = first.communicate("\n", timeout=60)
            if number is signal.SIGSTOP:
                assert "ConflictError" in error
                assert f"{KEY} could not be renewed for 3 s, and another process" in error
            second.require()
    # Released, it is free at once, whatever the first one did.
    with lease.held(bucket, KEY, "", lines.append):
        assert len(lines) == 1


def test_lease_is_renewed_while_it_is_held(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 2.0)
    with lease.held(bucket, KEY, "", quiet):
        etags = set()
        deadline = time.monotonic() + 60
        while len(etags) < 4:
            assert time.monotonic() < deadline
            etags.add(bucket.etag(KEY))
            time.sleep(0.1)


@pytest.mark.usefixtures("brief")
def test_bucket_that_is_silent_keeps_no_holder_from_ending(
    storage: s3.Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SECONDS_OF_SILENCE", 10)
    monkeypatch.setattr(lease, "_SECONDS_TO_RELEASE", 1)
    with lease.held(Bucket(s3.URL), KEY, "", quiet) as ours:
        storage.network.slow(1)
        began = time.monotonic()
    assert time.monotonic() - began < 8
    storage.network.mend()
    ours._thread.join(60)  # later tests are without it
    assert not ours._thread.is_alive()
    # Released, or expired.
    with lease.held(Bucket(s3.URL), KEY, "", quiet):
        pass


@pytest.mark.usefixtures("impatient", "long")
@pytest.mark.parametrize("way", ["up", "down"])
def test_renewal_that_is_cut_in_its_middle_is_done_again(
    storage: s3.Storage, bucket: Bucket, way: str
) -> None:
    with lease.held(bucket, KEY, "", quiet) as ours:
        before = storage.network.passed["up"]
        ours.require()
        sent = storage.network.passed["up"] - before
        # Nobody knows whether one without an answer was done.
        storage.network.cut(**{way: sent - 20 if way == "up" else 60})
        with pytest.raises(UnreachableError):
            ours.require()
        lease.Note.model_validate_json(storage.content(OBJECT))
        storage.network.mend()
        ours.require()
    with lease.held(bucket, KEY, "", pytest.fail):
        pass
