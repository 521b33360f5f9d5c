import os
import resource
import signal
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import killing
import pytest
import tiny
import torch
from damage import cut, empty
from killing import Training
from learning.probing import teacher

from cxr_assets.layout import Layout
from cxr_assets.learning.export import ExportError, export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.interruption import Interruption
from cxr_assets.learning.lock import TrainingError
from cxr_assets.learning.plan import Plan
from cxr_assets.radiographs.datamodule import RadiographsDataModule
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError

SHORT = "trainer.max_epochs=3"
DAY = 86_400


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


@contextmanager
def full_disk(file_size: int) -> Iterator[None]:
    """No file grows beyond ``file_size`` bytes, which a write sees as it sees a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def epochs(lines: list[str]) -> list[str]:
    return [line.split(":")[0] for line in lines if line.startswith("epoch")]


def test_killed_at_random_moments_a_training_ends_with_the_same_weights(tmp_path, tries):
    seed = int.from_bytes(os.urandom(4))
    lines: list[str] = []
    killing.soak(tmp_path, 2 * tries, seed, lines.append, epochs=12)
    assert len(lines) == 2 * tries, (seed, lines)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    layout = Layout(tmp_path_factory.mktemp("uninterrupted"))
    tiny.processed(layout, images=6)
    plan = killing.plan(layout, SHORT)
    fit(plan, lambda line: None)
    return killing.left_behind(plan.work)


def stop(plan: Plan, batch: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until a signal at a batch, of training or validation, counted from 1."""
    count = Counter()

    def signalled(hook: Callable[..., None]) -> Callable[..., None]:
        def run(self: Interruption, *arguments: object, **more: object) -> None:
            count["batches"] += 1
            if count["batches"] == batch:
                signal.raise_signal(number)
            hook(self, *arguments, **more)

        return run

    with monkeypatch.context() as patch:
        for name in ("on_train_batch_end", "on_validation_batch_end"):
            patch.setattr(Interruption, name, signalled(getattr(Interruption, name)))
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            fit(plan, lambda line: None)


def test_sigterm_before_the_first_batch_is_not_taken_for_the_end(
    layout, uninterrupted, monkeypatch
):
    plan = killing.plan(layout, SHORT)
    load = RadiographsDataModule.val_dataloader

    def signalled(self: RadiographsDataModule) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return load(self)

    with monkeypatch.context() as patch:
        patch.setattr(RadiographsDataModule, "val_dataloader", signalled)
        with pytest.raises(SystemExit) as stopped:
            fit(plan, lambda line: None)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not plan.settled()
    fit(plan, lambda line: None)
    assert killing.difference(killing.left_behind(plan.work), uninterrupted) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("batch", "steps"), [(1, 1), (4, 4), (5, 5), (7, 5), (8, 5), (9, 6)],
    ids=["first", "in between", "last", "validation", "end of validation", "next epoch"],
)  # fmt: skip
def test_a_training_stopped_at_a_batch_resumes_from_that_batch(
    batch, steps, number, layout, uninterrupted, monkeypatch, request
):
    """An epoch has five batches of training and three of validation."""
    # A background job is started with SIGINT ignored, and an ignored signal stops nothing.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    plan = killing.plan(layout, SHORT)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stop(plan, batch, number, monkeypatch)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.load(plan.work / "last.ckpt", weights_only=True)["global_step"] == steps
    lines: list[str] = []
    fit(plan, lines.append)
    assert lines[0].startswith("resuming from")
    assert killing.difference(killing.left_behind(plan.work), uninterrupted) is None


def test_with_a_teacher_and_growing_images_it_resumes_from_that_batch_too(
    layout, tmp_path, monkeypatch
):
    """In the middle of the second epoch, whose images are of another size than those of the first.

    Only the interrupted training reads from disk, and so must it be the same there.
    """
    more = (
        *teacher(tmp_path / "teacher"),
        *("trainer.progressive=0.5", "model.patch_size=2", "trainer.class_balance=sampling"),
    )
    straight = Layout(tmp_path / "straight")
    tiny.processed(straight, images=6)
    plan = killing.plan(straight, SHORT, *more)
    fit(plan, lambda line: None)
    expected = killing.left_behind(plan.work)
    assert "regressor.weight" in expected["best"]
    errors = expected["history"]["train_distillation"]
    assert len(set(errors)) == 3

    plan = killing.plan(layout, SHORT, *more, "data.in_memory_limit=1000")
    stop(plan, 11, signal.SIGTERM, monkeypatch)
    assert torch.load(plan.work / "last.ckpt", weights_only=True)["global_step"] == 8
    fit(plan, lambda line: None)
    assert killing.difference(killing.left_behind(plan.work), expected) is None


def test_out_of_patience_a_resumed_training_adds_no_epoch(layout):
    plan = killing.plan(layout, "trainer.patience=2")
    fit(plan, lambda line: None)
    expected = killing.left_behind(plan.work)
    assert len(expected["history"]["epoch"]) < killing.EPOCHS
    (plan.work / "finished.json").unlink()
    lines: list[str] = []
    fit(plan, lines.append)
    assert epochs(lines) == []
    assert killing.difference(killing.left_behind(plan.work), expected) is None


@pytest.mark.parametrize("force", [False, True], ids=["reused", "forced"])
def test_the_same_training_never_runs_twice_at_once(layout, force):
    plan = killing.plan(layout, SHORT)
    first = Training(plan, pause="epoch 2/3")
    first.wait_for("epoch 2/3")
    second = Training(plan, force=force)
    assert str(layout.root) in second.wait_for("the same training runs in another process")
    first.go_on()
    assert len(epochs(first.finish())) == 3
    assert len(epochs(second.finish())) == (3 if force else 0)
    export(plan)
    assert plan.settled() == f"reused {store.latest(plan.bundles).name}"
    assert not list(plan.work.parent.iterdir())


def test_the_same_training_gives_the_same_files(tmp_path):
    hashes = []
    for name in ("one", "two"):
        layout = Layout(tmp_path / name)
        tiny.processed(layout, images=6)
        plan = killing.plan(layout, SHORT)
        fit(plan, lambda line: None)
        hashes.append(store.verify(export(plan)[0]).files)
    one, two = hashes
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} == {"history.csv"}, "it holds seconds"


def test_a_full_disk_costs_only_the_epoch(layout):
    plan = killing.plan(layout, SHORT)
    message = r"best\.ckpt.* cannot be written: File too large.*space"
    with pytest.raises(TrainingError, match=message), full_disk(50_000):
        fit(plan, lambda line: None)
    assert not [path for path in plan.work.iterdir() if path.stat().st_size]

    lines: list[str] = []

    def fill(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2"):
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))

    with pytest.raises(TrainingError, match="cannot be written"), full_disk(2**30):
        fit(plan, fill)
    fit(plan, lines.append)
    assert epochs(lines) == ["epoch 1/3", "epoch 2/3", "epoch 2/3", "epoch 3/3"]

    with pytest.raises(BundleError, match=r"cannot be written: .*space"), full_disk(50_000):
        export(plan)
    assert store.versions(plan.bundles) == []
    assert store.read_pointer(plan.bundles) is None
    assert not list(plan.bundles.glob(".*.partial"))
    assert plan.finished
    directory, published = export(plan)
    assert published
    assert store.latest(plan.bundles) == directory


def test_folders_that_cannot_be_written_are_named(layout):
    plan = killing.plan(layout, SHORT)
    work = plan.work.parent
    work.write_text("in the way")
    with pytest.raises(TrainingError, match=rf"{work}.* cannot be written: .*writable"):
        fit(plan, lambda line: None)
    work.unlink()
    fit(plan, lambda line: None)
    plan.bundles.parent.mkdir()
    plan.bundles.write_text("in the way")
    with pytest.raises(ExportError, match=rf"{plan.bundles} cannot be written: .*writable"):
        export(plan)
    plan.bundles.unlink()
    assert export(plan)[1]


def alter(path: Path) -> None:
    """Change a byte of the largest tensor: bytes between tensors are nothing's."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    name, extra = struct.unpack_from("<HH", content, largest.header_offset + 26)
    content[largest.header_offset + 30 + name + extra + largest.file_size // 2] ^= 1
    path.write_bytes(content)


def of_something_else(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize(
    ("broken", "damage", "resumed"),
    [
        (("last.ckpt",), empty, "best.ckpt"),
        (("last.ckpt",), alter, "best.ckpt"),
        (("last.ckpt",), of_something_else, "best.ckpt"),
        (("best.ckpt",), empty, None),
        (("best.ckpt",), Path.unlink, None),
        (("last.ckpt", "best.ckpt"), cut, None),
    ],
)
def test_a_broken_checkpoint_is_set_aside_and_the_training_ends_the_same(
    broken, damage, resumed, layout, uninterrupted
):
    plan = killing.plan(layout, SHORT)
    with pytest.raises(Crash):
        fit(plan, crash)
    for name in broken:
        damage(plan.work / name)
    lines: list[str] = []
    fit(plan, lines.append, force=True)
    messages = [line for line in lines if not line.startswith("epoch")]
    if damage is not Path.unlink:
        for name in broken:
            aside = plan.work / f"{name}.broken"
            assert aside.exists()
            assert any(line.startswith(f"set aside as {aside}, because ") for line in messages), (
                messages
            )
    expected = [f"resuming from {plan.work / resumed}"] if resumed else []
    assert [line for line in messages if line.startswith("resuming")] == expected
    assert killing.difference(killing.left_behind(plan.work), uninterrupted) is None
    assert export(plan)[1]


@pytest.mark.parametrize(
    ("name", "damage"),
    [("finished.json", empty), ("best.ckpt", alter), ("history.csv", Path.unlink)],
)
def test_a_broken_finished_fit_is_not_exported_but_finished_again(
    name, damage, layout, uninterrupted
):
    plan = killing.plan(layout, SHORT)
    fit(plan, lambda line: None)
    damage(plan.work / name)
    with pytest.raises(ExportError, match="run the fit first"):
        export(plan)
    lines: list[str] = []
    fit(plan, lines.append)
    assert len(epochs(lines)) == (3 if name == "best.ckpt" else 0)
    assert killing.difference(killing.left_behind(plan.work), uninterrupted) is None
    assert export(plan)[1]


def test_a_broken_bundle_is_set_aside_and_made_again(layout):
    plan = killing.plan(layout, SHORT)
    fit(plan, lambda line: None)
    before, _ = export(plan)
    whole = store.verify(before)
    empty(before / "model.safetensors")
    with pytest.raises(BundleError, match="materialise convnext_model again"):
        store.verify(before)
    lines: list[str] = []
    fit(plan, lines.append)
    assert lines[0].startswith(f"set aside as {before}.broken: {before / 'model.safetensors'} does")
    export(plan)
    again = store.verify(store.latest(plan.bundles))
    assert again.files["model.safetensors"] == whole.files["model.safetensors"]
    assert store.versions(plan.bundles) == [again.version]


class Crash(Exception):
    pass


def crash(line: str) -> None:
    if line.startswith("epoch 2"):
        raise Crash
