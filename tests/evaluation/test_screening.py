from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tiny
from damage import empty
from PIL import Image
from radiographs import prepared

from cxr_assets.evaluation import screening
from cxr_assets.evaluation.removal import remove_absent
from cxr_assets.evaluation.screening import Screened, screen
from cxr_assets.layout import Layout
from cxr_assets.radiographs import raw, withdrawal
from cxr_assets.radiographs.raw import RawImages
from cxr_serving.model import store

ASSET = "convnext_model"
TINTED, GREY, BROKEN = (
    f"train/PNEUMONIA/person{number}_virus_{number}.jpeg" for number in (801, 802, 803)
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return prepared.twelve_patients(tmp_path / "chest_xray")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data")


def collect(source: Path, layout: Layout) -> RawImages:
    return raw.collect(prepared.data(source), tiny.CLASSES, layout, prepared.silent)


def judge(source: Path, layout: Layout) -> Screened:
    return screen(layout, collect(source, layout), ASSET, prepared.silent)


def publish(source: Path, layout: Layout, with_gate: bool = True) -> Path:
    """A model that knows all images that are there."""
    record, _ = prepared.make(source, layout)
    gate = tiny.gate() if with_gate else None
    return tiny.publish(layout, ASSET, tiny.convnext(), record.data_version, gate=gate)


def add(source: Path) -> None:
    """Three images: one that the gate rejects, one that it accepts, one that cannot be decoded."""
    rng = np.random.default_rng(9)
    for path, tint in ((TINTED, (1, 0.5, 0)), (GREY, (1, 1, 1)), (BROKEN, (1, 1, 1))):
        pixels = rng.integers(0, 256, (5, 7, 1)).repeat(10, axis=0).repeat(10, axis=1) * tint
        Image.fromarray(pixels.astype(np.uint8)).save(source / path)
    content = (source / BROKEN).read_bytes()
    (source / BROKEN).write_bytes(content[: len(content) // 2])


def test_without_a_model_and_without_a_gate_it_says_so(source: Path, layout: Layout) -> None:
    assert judge(source, layout).summary.startswith("not judged: there is no model yet")
    publish(source, layout, with_gate=False)
    found = judge(source, layout)
    assert "has no gate" in found.summary
    assert found.rejected.empty
    assert found.page is None


def test_only_what_the_model_does_not_know_is_judged_and_nothing_is_left_out(
    source: Path, layout: Layout
) -> None:
    model = publish(source, layout)
    assert judge(source, layout).summary == f"no image is new to the newest model, {model.name}"
    add(source)
    images = collect(source, layout)
    found = screen(layout, images, ASSET, prepared.silent)
    assert found.summary == (
        f"of 3 images that the newest model, {model.name}, does not know, its gate judged 2 and "
        "rejects 1; 1 cannot be decoded"
    )
    [row] = found.rejected.to_dict("records")
    [sha256] = images.inventory.loc[images.inventory["path"] == TINTED, "sha256"]
    assert row == {"source": "folder", "path": TINTED, "sha256": sha256, "reasons": "colour"}
    assert found.page == layout.screened
    page = layout.screened.read_text()
    assert page.count("<figure") == page.count("data:image/png") == 1
    assert f'data-images="{sha256}"' in page
    assert "shows images of patients" in page
    assert "colour" in page
    assert images.inventory["problem"].isna().sum() == 27
    judged = raw.load(layout)
    assert judged is not None
    assert judged.data_version == collect(source, Layout(layout.root.parent / "new")).data_version
    (source / TINTED).unlink()
    assert judge(source, layout).page is None
    assert not layout.screened.exists(), "it showed an image that is gone"


def test_many_new_images_are_judged_in_part_and_the_number_is_reported(
    source: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(source, layout)
    add(source)
    monkeypatch.setattr(screening, "_MOST", 2)
    assert "of 3 images" in judge(source, layout).summary
    assert "its gate judged 1 " in judge(source, layout).summary, "the first and the broken last"


@pytest.mark.parametrize("file", ["model.safetensors", "bundle.json", "split.csv"])
def test_a_broken_model_is_named_and_stops_nothing(file: str, source: Path, layout: Layout) -> None:
    model = publish(source, layout)
    add(source)
    empty(model / file)
    summary = judge(source, layout).summary
    assert summary.startswith("not judged: ")
    assert file in summary


def test_a_patient_who_withdraws_leaves_the_page(source: Path, layout: Layout) -> None:
    publish(source, layout)
    add(source)
    [image] = judge(source, layout).rejected["sha256"]
    now = datetime(2026, 3, 1, tzinfo=UTC)
    withdrawal.record(layout, "folder/viral/801", {image}, now)
    remove_absent(layout)
    assert image not in layout.screened.read_text()
    assert judge(source, layout).page is None
    assert store.read_pointer(layout.models(ASSET))
