"""Several machines, each a folder of its own, and a bucket between them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import s3
from machines import ASSET, pointed, publish, quiet, report

from cxr_assets import exchange, written
from cxr_assets.exchange import exchanged
from cxr_assets.layout import Layout
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.remote_errors import ConflictError, NoConditionsError, RemoteError


def test_one_machine_resumes_what_the_other_left(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    with exchanged(a, quiet):
        version = publish(a, 1)
        report(a, version, "first")
        a.decisions.mkdir()
        (a.decisions / f"20260101T000000000000Z-{version}.json").write_text("{}")
        a.withdrawn.write_text("patient\n")
        a.raw.mkdir()
        (a.raw / "image.png").write_text("stays here")
    with exchanged(b, quiet):
        assert store.verify(store.latest(b.models(ASSET))).version == version
        assert written.fault(b.reports / version) is None
        assert (b.reports / "report.html").read_text() == "first"
        assert len(list(b.decisions.iterdir())) == 1
        assert b.withdrawn.read_text() == "patient\n"
        assert not b.raw.exists()
        second = publish(b, 2)
        report(b, version, "without a patient")
        store.write_pointer(b.reports, version)
        shutil.rmtree(b.models(ASSET) / version)
    exchange.pull(a, quiet)
    assert store.versions(a.models(ASSET)) == [second]
    assert (a.reports / version / "report.html").read_text() == "without a patient"
    assert pointed(storage) == second
    before = storage.network.passed["down"]
    exchange.pull(a, quiet)
    assert storage.network.passed["down"] - before < 20_000  # the list alone


def test_folder_is_left_as_it_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    with exchanged(layout, quiet):
        publish(layout, 1)
    exchange.pull(layout, quiet)
    assert [path.name for path in layout.root.iterdir()] == ["models"]


def test_lost_local_folder_deletes_nothing_in_the_bucket(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a = machine("a")
    with exchanged(a, quiet):
        version = publish(a, 1)
    shutil.rmtree(a.models(ASSET))
    with exchanged(a, quiet):
        assert store.verify(store.latest(a.models(ASSET))).version == version
    assert pointed(storage) == version


def test_bucket_that_was_emptied_empties_no_copy(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a = machine("a")
    with exchanged(a, quiet):
        version = publish(a, 1)
    storage.empty()
    with pytest.raises(RemoteError, match=r"s3://hospital/cxr is empty, but .* is a copy"):
        exchange.pull(a, quiet)
    a.exchanged.unlink()
    with exchanged(a, quiet):
        pass
    assert pointed(storage) == version


def test_damaged_version_is_left_out_and_made_again(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    with exchanged(a, quiet):
        version = publish(a, 1)
        report(a, version, "first")
    storage.damage(f"cxr/reports/{version}.tar")
    lines: list[str] = []
    with exchanged(b, lines.append):
        assert f"cxr/reports/{version}.tar does not match its sha256" in lines[0]
        assert not (b.reports / version).exists()
        report(b, version, "again")
    exchange.pull(a, quiet)
    assert (a.reports / version / "report.html").read_text() == "again"


def test_step_that_fails_leaves_there_what_it_has_done(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a = machine("a")

    def step() -> None:
        with exchanged(a, quiet):
            publish(a, 1)
            a.withdrawn.write_text("patient\n")
            raise BundleError("the report failed")

    with pytest.raises(BundleError, match="the report failed"):
        step()
    assert storage.content("cxr/withdrawn.csv") == b"patient\n"


def test_two_withdrawals_at_once_are_both_kept(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    for layout in (a, b):
        exchange.pull(layout, quiet)
    a.root.mkdir(exist_ok=True)
    a.withdrawn.write_text("first patient\n")  # a step that was killed before it ended
    with exchanged(b, quiet):
        b.withdrawn.write_text("second patient\n")
    with pytest.raises(ConflictError, match=r"withdrawn.csv have both changed: move the file"):
        exchange.pull(a, quiet)
    assert a.withdrawn.read_text() == "first patient\n"
    assert storage.content("cxr/withdrawn.csv") == b"second patient\n"


@pytest.mark.parametrize(
    ("lacks", "answer", "message"),
    [
        ("IF_NONE_MATCH", None, "replaces it on a condition that is false; use one with"),
        ("IF_MATCH", None, "replaces it on a condition that is false; use one with"),
        ("IF_NONE_MATCH", "501 Not Implemented", "answers 501; use one with"),
        ("IF_MATCH", "412 Precondition Failed", "says it has changed, but it has not; use one"),
    ],
)
def test_server_without_conditional_writes_is_rejected_before_a_step_begins(
    machine: Callable[[str], Layout],
    storage: s3.Storage,
    lacks: str,
    answer: str | None,
    message: str,
) -> None:
    if storage.moto is None:
        pytest.skip("the server of S3_ENDPOINT is as it is")
    storage.moto.lacks, storage.moto.answer = lacks, answer
    began = False
    for layout in (machine("a"), machine("b")):
        with pytest.raises(NoConditionsError, match=message), exchanged(layout, quiet):
            began = True
    assert not began
