"""A training whose machine is gone for good."""

import io
import shutil
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import pytest
import s3
import tiny
from machines import quiet

from cxr_assets import handover
from cxr_assets.exchange import exchanged
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan
from cxr_serving.model.remote import Bucket
from cxr_serving.model.remote_errors import ConflictError, UnreachableError

FINGERPRINT = "0123456789abcdef" * 4
LOCK = f"locks/{FINGERPRINT[:16]}.json"
KEY = f"cxr/work/{FINGERPRINT[:16]}.tar"


class MachineGone(BaseException):
    pass


def plan(layout: Layout) -> Plan:
    tiny.processed(layout, images=2)
    overrides = [*tiny.NETWORKS, "trainer.max_epochs=4", "trainer.batch_size=4"]
    return make_plan("convnext_model", compose("demo", overrides), layout)


def train(made: Plan, progress: Callable[[str], None]) -> None:
    with handover.resumed(made.layout, made.work, progress) as saved:
        fit(made, progress, saved=saved)


def until(line: str) -> Callable[[str], None]:
    def progress(reported: str) -> None:
        if reported.startswith(line):
            raise MachineGone

    return progress


# It would forget which epoch was the best.
@pytest.mark.filterwarnings("error:The dirpath has changed")
def test_training_resumes_on_another_machine(tmp_path: Path, storage: s3.Storage) -> None:
    first = plan(Layout(tmp_path / "first", s3.URL))
    try:
        train(first, until("epoch 3/4"))
    except MachineGone:
        shutil.rmtree(first.layout.root)
    key = f"cxr/work/{first.work.name}.tar"
    assert storage.has(key)

    second = plan(Layout(tmp_path / "second", s3.URL))
    assert second.fingerprint == first.fingerprint
    lines: list[str] = []
    train(second, lines.append)
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 3/4", "epoch 4/4"]
    assert pd.read_csv(second.work / "history.csv")["epoch"].tolist() == [0, 1, 2, 3]
    with exchanged(second.layout, lines.append):
        directory, _ = export(second)
    handover.ended(second.layout, second.work)
    assert storage.has(f"cxr/models/convnext_model/{directory.name}.tar")
    assert not storage.has(key)


def test_training_without_its_bucket_ends_all_the_same(tmp_path: Path, storage: s3.Storage) -> None:
    made = plan(Layout(tmp_path, s3.URL))
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2/4"):
            storage.network.cut(down=0)
        elif line.startswith("epoch 4/4"):
            storage.network.mend()

    train(made, progress)
    assert made.finished
    assert sum("this checkpoint is on this machine alone" in line for line in lines) == 2
    assert storage.has(f"cxr/work/{made.work.name}.tar")


def checkpoint(layout: Layout, text: str) -> None:
    work = layout.work(FINGERPRINT)
    work.mkdir(exist_ok=True)
    (work / "last.ckpt").write_text(text + 300_000 * ".")


def resumed(
    layout: Layout, progress: Callable[[str], None] = quiet
) -> AbstractContextManager[Callable[[], None]]:
    return handover.resumed(layout, layout.work(FINGERPRINT), progress)


def left(layout: Layout, text: str) -> None:
    """A training ends for now, with this checkpoint in the bucket."""
    with resumed(layout) as save:
        checkpoint(layout, text)
        save()


def found(layout: Layout) -> str:
    return (layout.work(FINGERPRINT) / "last.ckpt").read_text().rstrip(".")


@pytest.mark.usefixtures("brief", "impatient")
def test_whoever_was_away_for_too_long_replaces_nothing(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    first, second = machine("first"), machine("second")
    with resumed(first) as save_first:
        checkpoint(first, "epoch 1")
        save_first()
        storage.network.cut(up=0)
        with storage.other_network(), resumed(second) as save_second:
            assert found(second) == "epoch 1"
            storage.network.mend()
            checkpoint(first, "epoch 2 of the first")
            with pytest.raises(ConflictError, match=rf"{LOCK} could not be .*: do the same again"):
                save_first()
            checkpoint(second, "epoch 2 of the second")
            save_second()
    with resumed(first):
        assert found(first) == "epoch 2 of the second"


def test_export_deletes_its_own_checkpoints_alone(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    first, second = machine("first"), machine("second")
    left(first, "finished")
    left(second, "trained again")
    for layout in (first, second):
        shutil.rmtree(layout.work(FINGERPRINT))
        handover.ended(layout, layout.work(FINGERPRINT))
        assert storage.has(KEY) is (layout is first)


@pytest.mark.usefixtures("impatient", "long")
@pytest.mark.parametrize("way", ["up", "down"])
def test_checkpoint_whose_way_is_cut_is_left_with_the_next_one(
    machine: Callable[[str], Layout], storage: s3.Storage, bucket: Bucket, way: str
) -> None:
    first, second = machine("first"), machine("second")
    lines: list[str] = []
    with resumed(first, lines.append) as save:
        checkpoint(first, "epoch 1")
        save()
        before = storage.network.passed["down"]
        save()
        answers = storage.network.passed["down"] - before
        bucket.write("another", b"object", None)
        last = storage.network.passed["down"] - before - answers
        # In the middle of it, or when all is sent, in the first half of the last answer.
        storage.network.cut(**{way: 150_000 if way == "up" else answers - 3 * last // 4})
        checkpoint(first, "epoch 2")
        save()
        assert ["alone: s3://" in line for line in lines] == [True]
        storage.network.mend()
        held = io.BytesIO(storage.content(KEY))
        with tarfile.open(fileobj=held) as tar:
            content = tar.extractfile("./last.ckpt")
            assert content is not None
            assert content.read(7) == (b"epoch 1" if way == "up" else b"epoch 2")
        checkpoint(first, "epoch 3")
        save()
        assert len(lines) == 1
    with resumed(second):
        assert found(second) == "epoch 3"


@pytest.mark.usefixtures("brief", "impatient")
def test_checkpoint_that_is_cut_on_arrival_is_not_there(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    first, second = machine("first"), machine("second")
    left(first, "epoch 1")
    storage.network.cut(down=150_000)
    began = False
    with pytest.raises(UnreachableError), resumed(second):
        began = True
    assert not began
    assert list(second.work(FINGERPRINT).parent.iterdir()) == []
    storage.network.mend()
    with resumed(second):
        assert found(second) == "epoch 1"
