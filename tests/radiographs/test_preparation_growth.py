import os

import numpy as np
import pytest
from PIL import Image
from radiographs import handmade

from cxr_assets.layout import Layout
from cxr_assets.radiographs import decoding
from cxr_assets.radiographs.dataset import (
    manifest,
)
from cxr_assets.radiographs.decoding import Decoder
from cxr_serving.model.dataset import Change


def inodes(layout) -> dict[str, int]:
    rows = manifest(layout.processed).query("kept")
    places = zip(rows["sha256"], rows["file"], strict=True)
    return {image: (layout.processed / file).stat().st_ino for image, file in places}


def pixels(layout) -> dict[str, bytes]:
    rows = manifest(layout.processed).query("kept")
    places = zip(rows["sha256"], rows["file"], strict=True)
    return {image: (layout.processed / file).read_bytes() for image, file in places}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the source files that are decoded."""
    names: list[str] = []
    write = Decoder.write

    def noted(self, source, expected, target):
        names.append(source.name)
        return write(self, source, expected, target)

    monkeypatch.setattr(Decoder, "write", noted)
    return names


def test_only_new_images_are_decoded_and_the_rest_is_linked(layout, tmp_path, decoded):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    handmade.make(layout, handmade.images(tmp_path, rows))
    before = inodes(layout)
    decoded.clear()
    rows += [handmade.row(tmp_path, number) for number in (12, 13)]
    _, lines = handmade.make(layout, handmade.images(tmp_path, rows))
    assert sorted(decoded) == ["12.png", "13.png"]
    assert "12 images are unchanged, 2 are new" in lines
    after = inodes(layout)
    assert {image: after[image] for image in before} == before
    grown = pixels(layout)

    decoded.clear()
    handmade.make(layout, handmade.images(tmp_path, rows), seed=1)
    assert not decoded, "another draw has the same images"
    fresh = Layout(tmp_path / "fresh")
    handmade.make(fresh, handmade.images(tmp_path, rows))
    assert pixels(fresh) == grown
    decoded.clear()
    handmade.make(layout, handmade.images(tmp_path, rows), image_size=48)
    assert len(decoded) == 14


def test_other_decoding_code_decodes_all_again(layout, tmp_path, decoded, monkeypatch):
    raw_images = handmade.images(tmp_path, [handmade.row(tmp_path, n) for n in range(12)])
    first, _ = handmade.make(layout, raw_images)
    decoded.clear()
    monkeypatch.setattr(decoding, "version", lambda: "another")
    second, _ = handmade.make(layout, raw_images)
    assert len(decoded) == 12
    assert second.data_version != first.data_version


def test_a_changed_file_of_the_last_dataset_is_made_again(layout, tmp_path, decoded):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    handmade.make(layout, handmade.images(tmp_path, rows))
    whole = pixels(layout)
    victim = layout.processed / manifest(layout.processed)["file"][0]
    victim.write_bytes(b"changed")
    decoded.clear()
    rows.append(handmade.row(tmp_path, 12))
    handmade.make(layout, handmade.images(tmp_path, rows))
    assert sorted(decoded) == ["0.png", "12.png"]
    assert whole.items() <= pixels(layout).items()


def test_without_links_images_are_copied(layout, tmp_path, decoded, monkeypatch):
    def fail(*paths: object, **options: object) -> None:
        raise OSError("no links on this file system")

    monkeypatch.setattr(os, "link", fail)
    rows = [handmade.row(tmp_path, number) for number in range(13)]
    handmade.make(layout, handmade.images(tmp_path, rows[:12]))
    before = pixels(layout)
    decoded.clear()
    handmade.make(layout, handmade.images(tmp_path, rows))
    assert decoded == ["12.png"]
    assert before.items() <= pixels(layout).items()


def test_the_record_says_what_changed_and_an_unchanged_run_repeats_it(layout, tmp_path):
    rows = [handmade.row(tmp_path, number, site="north") for number in range(20)]
    first, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert first.changes is None
    rows[0] |= {"label": "viral_pneumonia"}
    rows[2:3] = [handmade.row(tmp_path, number, site="south") for number in (20, 22)]
    second, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert second.changes is not None
    assert second.changes.since == first.data_version
    assert second.changes.total == Change(added=2, removed=1, relabelled=1)
    assert second.changes.classes["viral_pneumonia"] == Change(relabelled=1)
    assert second.changes.sites == {
        "north": Change(removed=1, relabelled=1), "south": Change(added=2),
    }  # fmt: skip
    assert handmade.make(layout, handmade.images(tmp_path, rows))[0] == second
    next(layout.processed.rglob("*.png")).unlink()
    assert handmade.make(layout, handmade.images(tmp_path, rows))[0] == second


def test_how_coloured_a_file_is_stays_known_when_its_grey_copy_is_linked(layout, tmp_path, decoded):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 1), dtype=np.uint8)
    (tmp_path / "ours").mkdir()
    tinted = (pixels * [1, 0.7, 0.4]).astype(np.uint8)
    Image.fromarray(tinted).save(tmp_path / "ours" / "3.png")
    for images in (12, 13):
        rows = [handmade.row(tmp_path, number) for number in range(images)]
        handmade.make(layout, handmade.images(tmp_path, rows))
        colour = manifest(layout.processed).set_index("path")["colour"]
        assert len(colour) == images
        assert colour.pop("3.png") > 0.1
        assert (colour == 0).all()
    assert decoded.count("3.png") == 1
