"""A split of any size takes no more memory than a batch of it."""

import ctypes
import gc
import re
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tiny

from cxr_assets.evaluation import (
    bootstrap,
    illustration,
    inference,
    page,
    rejection,
    report,
    robustness,
    shortcuts,
    suspects,
)
from cxr_assets.evaluation.audit import AUDIT_FILE
from cxr_assets.evaluation.scanners import SCANNERS
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import backbone, bundling, embeddings, gate
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs import dataset, leakage

Floats = npt.NDArray[np.float32]
SIZE = 128
# Images of a class. What is held whatever their number counts in both peaks.
FEW, MANY = 10, 40
# Bytes of the images that MANY has more than FEW: a split held whole takes them, too.
MORE = 3 * (MANY - FEW) * SIZE**2


@pytest.fixture(autouse=True)
def _larger_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that images outweigh all else that grows with their number."""
    monkeypatch.setattr(tiny, "SIZE", SIZE)


def peak(work: Callable[[], object]) -> int:
    """Bytes that numpy and Python allocated at most at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def resident(work: Callable[[], object]) -> int:
    """Bytes by which the whole process grew at most."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def grows_by_less(measured: Callable[[int], int], few: int, many: int, most: float) -> bool:
    """Whether more images take less than so many bytes more, in one of three attempts.

    In a process that has run many tests, Python's table of names grows at any moment, by 15 MB.
    """
    return any(measured(many) < measured(few) + most for _ in range(3))


def _status(field: str) -> int:
    [kilobytes] = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def test_a_report_never_holds_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, few, many = 256, 6, 13
    monkeypatch.setattr(tiny, "SIZE", size)
    for module in (inference, rejection, leakage):
        monkeypatch.setattr(module, "_BATCH", 4)
    monkeypatch.setattr(bootstrap, "RESAMPLES", 2)
    monkeypatch.setattr(shortcuts, "_TREES", 5)
    # As many images as are altered or looked at again are held or read, whatever the split.
    monkeypatch.setattr(rejection, "_ALTERED", 4)
    monkeypatch.setattr(rejection, "_SEEN", 4)
    monkeypatch.setattr(robustness, "_IMAGES", 4)
    # These are the same for any number of images, and so large that they would hide a split that
    # is held before: what one image takes in a scanner, plots and page.
    monkeypatch.setattr(robustness, "SCANNERS", {"darker": SCANNERS["darker"]})
    monkeypatch.setattr(illustration, "draw", lambda *given: {})
    monkeypatch.setattr(page, "render", lambda *given: "")

    def peak_of_report(images: int) -> int:
        shutil.rmtree(tmp_path, ignore_errors=True)
        layout = Layout(tmp_path / str(images))
        version = tiny.processed(layout, images=images, test_images=images).data_version
        main = tiny.publish(
            layout,
            "convnext_model",
            tiny.convnext(),
            version,
            gate=tiny.gate(),
            with_onnx=True,
        )
        probe = tiny.publish(layout, "dinov2_probe", tiny.dinov2(), version)
        taken = peak(lambda: report.write_report(layout, main, probe))
        assert list(layout.reports.rglob(AUDIT_FILE)), "labels were not audited"
        return taken

    peak_of_report(5)  # what is imported on the way counts once
    of_a_split = 3 * (many - few) * size**2
    assert grows_by_less(peak_of_report, few, many, of_a_split / 2)


def similar(rows: pd.DataFrame, described: Floats) -> None:
    leakage._similar(rows, np.arange(len(rows)), described, within_splits=True)


def strange(rows: pd.DataFrame, described: Floats) -> None:
    suspects.strangeness(described)


def judge(rows: pd.DataFrame, described: Floats) -> None:
    suspects.out_of_fold(described, rows["target"].to_numpy(), rows["patient"])


def resample(rows: pd.DataFrame, described: Floats) -> None:
    drawn = bootstrap.draws(rows["patient"])
    given = described[:, :3], rows["target"].to_numpy(), ("a", "b", "c"), drawn
    bootstrap.scores(*given)
    bootstrap.top1(*given, member=rows["target"].to_numpy() == 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget the peak so far")
@pytest.mark.parametrize(
    ("work", "width", "most"),
    [(similar, 1024, 1), (strange, 384, 4), (judge, 384, 9), (resample, 3, 7)],
)
def test_what_is_held_of_an_image_is_of_the_size_of_what_describes_it(
    work: Callable[[pd.DataFrame, Floats], None],
    width: int,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most so many kB an image, those that libraries allocate natively among them."""
    monkeypatch.setattr(leakage, "_BLOCK", 256)
    rng = np.random.default_rng(0)

    def held(number: int) -> int:
        rows = pd.DataFrame(
            {
                "split": rng.choice(["train", "val", "test"], number, p=[0.7, 0.15, 0.15]),
                "class": rng.choice(["a", "b", "c"], number),
                "target": rng.integers(0, 3, number),
                "patient": [f"patient {image // 2}" for image in range(number)],
            }
        )
        described = rng.random((number, width), np.float32)
        return resident(lambda: work(rows, described))

    few, many = 1000, 4000
    held(few)  # what is imported on the way counts once
    assert grows_by_less(held, few, many, 1000 * most * (many - few))


def test_an_export_never_holds_the_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "_BATCH", 2)
    # A gate's matrices and altered images are the same for any number of images, and large.
    monkeypatch.setattr(gate, "_FEWEST", (1000, 1000))
    overrides = (*tiny.NETWORKS, "trainer.max_epochs=1", "data.in_memory_limit=0")

    def peak_of_export(images: int) -> int:
        shutil.rmtree(tmp_path, ignore_errors=True)
        layout = Layout(tmp_path / str(images))
        tiny.processed(layout, images=images, test_images=1)
        plan = make_plan("convnext_model", compose("demo", overrides), layout)
        fit(plan, lambda line: None)
        return peak(lambda: export(plan))

    peak_of_export(1)
    assert grows_by_less(peak_of_export, FEW, MANY, MORE / 2)


def test_embedding_never_holds_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Reading the code that it names takes about 1 MB, whatever the split.
    monkeypatch.setattr(embeddings, "code_version", lambda module: module)
    # Each processor holds the input of one image: twelve times its pixels.
    monkeypatch.setattr(backbone.processors, "count", lambda: 1)
    layout = Layout(tmp_path)
    tiny.processed(layout, images=MANY, test_images=1)
    rows = dataset.kept(layout.processed, "val")
    network = tiny.dinov2().dinov2

    def peak_of_embedding(images: int) -> int:
        shutil.rmtree(layout.embeddings, ignore_errors=True)
        some = rows[:images]
        return peak(lambda: embeddings.embed(network, layout, some, lambda line: None))

    peak_of_embedding(4)
    assert grows_by_less(peak_of_embedding, 4, len(rows) - 8, MORE / 3)
