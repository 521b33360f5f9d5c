"""A split of any size takes no more memory than a batch of it."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

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
)
from cxr_assets.evaluation.scanners import SCANNERS
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import backbone, bundling, embeddings, gate
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs import dataset

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


def test_a_report_never_holds_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_BATCH", 4)
    monkeypatch.setattr(bootstrap, "RESAMPLES", 2)
    monkeypatch.setattr(shortcuts, "_TREES", 5)
    # As many images as are altered are held, whatever the split.
    monkeypatch.setattr(rejection, "_ALTERED", 4)
    # What one image takes in a scanner is the same for any number of images, and large.
    monkeypatch.setattr(robustness, "SCANNERS", {"darker": SCANNERS["darker"]})
    # Plots and page are the same for any number of images, and large.
    monkeypatch.setattr(illustration, "draw", lambda *given: {})
    monkeypatch.setattr(page, "render", lambda *given: "")

    def peak_of_report(images: int) -> int:
        layout = Layout(tmp_path / str(images))
        version = tiny.processed(layout, test_images=images).data_version
        models = [
            tiny.publish(layout, asset, network, version)
            for asset, network in (
                ("convnext_model", tiny.convnext()),
                ("dinov2_probe", tiny.dinov2()),
            )
        ]
        return peak(lambda: report.write_report(layout, *models))

    peak_of_report(1)  # what is imported on the way counts once
    assert peak_of_report(MANY) < peak_of_report(FEW) + MORE / 2


def test_an_export_never_holds_the_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "_BATCH", 2)
    # A gate's matrices and altered images are the same for any number of images, and large.
    monkeypatch.setattr(gate, "_FEWEST", (1000, 1000))
    overrides = (*tiny.NETWORKS, "trainer.max_epochs=1", "data.in_memory_limit=0")

    def peak_of_export(images: int) -> int:
        layout = Layout(tmp_path / str(images))
        tiny.processed(layout, images=images, test_images=1)
        plan = make_plan("convnext_model", compose("demo", overrides), layout)
        fit(plan, lambda line: None)
        return peak(lambda: export(plan))

    peak_of_export(1)
    assert peak_of_export(MANY) < peak_of_export(FEW) + MORE / 2


def test_embedding_never_holds_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Reading the code that it names takes about 1 MB, whatever the split.
    monkeypatch.setattr(embeddings, "code_version", lambda module: module)
    # Each processor holds the input of one image: twelve times its pixels.
    monkeypatch.setattr(backbone.processors, "count", lambda: 1)
    layout = Layout(tmp_path)
    tiny.processed(layout, images=MANY, test_images=1)
    rows = dataset.kept(layout.processed, "val")
    network = tiny.dinov2().dinov2

    def peak_of_embedding(first: int, end: int) -> int:
        some = rows[first:end]
        return peak(lambda: embeddings.embed(network, layout, some, lambda line: None))

    peak_of_embedding(0, 4)
    assert peak_of_embedding(8, len(rows)) < peak_of_embedding(4, 8) + MORE / 3
