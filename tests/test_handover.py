"""A training whose machine is gone for good."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import s3
import tiny

from cxr_assets import handover
from cxr_assets.exchange import exchanged
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan


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
