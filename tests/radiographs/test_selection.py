"""Which images of tables are kept, and in which split, as a dataset grows."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import tiny
from radiographs.handmade import CLASSES, data, images, make, row

from cxr_assets.layout import Layout
from cxr_assets.radiographs import membership
from cxr_assets.radiographs.dataset import manifest
from cxr_assets.radiographs.preparation import PreparationError
from cxr_assets.radiographs.selection import Previous, select
from cxr_assets.sources import Source
from cxr_serving.model import store


def splits(layout) -> dict[str, str]:
    rows = manifest(layout.processed).query("kept")
    return dict(zip(rows["patient"], rows["split"], strict=True))


def planned(raw, previous=None, **changes: object) -> pd.DataFrame:
    return select(raw, data(**changes), CLASSES, previous).set_index("path")


def test_patients_stay_when_others_come_in_any_order(layout, tmp_path):
    """Of so few, some are moved to fill a split: by their draw alone they would go back."""
    few = [row(tmp_path, number) for number in range(6)]
    make(layout, images(tmp_path, few))
    before = splits(layout)
    assert set(before.values()) == {"train", "val", "test"}
    make(layout, images(tmp_path, [row(tmp_path, number) for number in range(39, -1, -1)]))
    after = splits(layout)
    assert len(after) == 40
    assert {name: after[name] for name in before} == before


def test_without_the_last_dataset_patients_stay_where_models_have_them(layout, tmp_path):
    rows = [row(tmp_path, number) for number in range(40)]
    make(layout, images(tmp_path, rows[:6]))
    before = splits(layout)
    for day, (asset, changed) in enumerate((("new", {}), ("newer", {"seed": 1}))):
        record, _ = make(layout, images(tmp_path, rows[:6]), **changed)
        tiny.publish(
            layout,
            asset,
            tiny.convnext(CLASSES),
            record.data_version,
            now=datetime(2026, 1, 1 + day, tzinfo=UTC),
            draw=record.draw,
        )
    other = [row(tmp_path, number, "other") for number in range(100, 120)]
    for lost in (True, False):
        make(layout, images(tmp_path, other))
        if lost:
            shutil.rmtree(layout.processed)
        make(layout, images(tmp_path, rows))
        assert {name: splits(layout)[name] for name in before} == before
    alone = Layout(tmp_path / "alone")
    make(alone, images(tmp_path, rows))
    assert {name: splits(alone)[name] for name in before} != before, "some had filled a split"

    (store.latest(layout.models("new")) / membership.SPLIT_FILE).unlink()
    shutil.rmtree(layout.processed)
    _, lines = make(layout, images(tmp_path, rows))
    assert any("no splits are taken from it" in line for line in lines)
    assert splits(layout) == splits(alone)


def test_a_moved_patient_is_an_error_and_both_remedies_work(layout, tmp_path):
    rows = [row(tmp_path, number) for number in range(20)]
    make(layout, images(tmp_path, rows))
    record = Previous.read(layout.processed).record
    patient = next(name for name, split in splits(layout).items() if split == "train")
    moved = [one | {"split": "test"} if one["patient"] == patient else one for one in rows]
    with pytest.raises(PreparationError, match=rf"{patient} was in train and would move to test"):
        make(layout, images(tmp_path, moved))
    assert Previous.read(layout.processed).record == record, "the old dataset is left"
    assert make(layout, images(tmp_path, rows))[0] == record
    make(layout, images(tmp_path, moved), seed=1)
    assert splits(layout)[patient] == "test"


def test_another_source_of_the_same_name_is_drawn_afresh(layout, tmp_path):
    make(
        layout,
        images(
            tmp_path,
            [row(tmp_path, n, split="train") for n in range(4)]
            + [row(tmp_path, n) for n in range(4, 20)],
        ),
    )
    other = [row(tmp_path / "other", n, path=f"{n + 50}.png", split="test") for n in range(20)]
    for one in other[:12]:
        one["split"] = None
    for number, one in enumerate(other):
        one["sha256"] = f"{number:064x}"
    found = planned(images(tmp_path / "other", other), Previous.read(layout.processed))
    assert (found["split"] == "test").sum() == 8


def test_a_patient_or_a_source_of_another_name_is_known_by_its_images(layout, tmp_path):
    rows = [row(tmp_path, number) for number in range(40)]
    make(layout, images(tmp_path, rows[:6]))
    make(layout, images(tmp_path, rows))
    before = splits(layout)
    for one in rows:
        one["patient"] = f"{one['patient']}-renamed"
    found = planned(images(tmp_path, rows), Previous.read(layout.processed))
    assert {name.removesuffix("-renamed"): split for name, split in
            zip(found["patient"], found["split"], strict=True)} == before  # fmt: skip
    test = next(one for one in rows if before[one["patient"].removesuffix("-renamed")] == "test")
    train = next(one for one in rows if before[one["patient"].removesuffix("-renamed")] == "train")
    test["patient"] = train["patient"] = "one and the same"
    found = planned(images(tmp_path, rows), Previous.read(layout.processed))
    assert set(found.loc[found["patient"] == "one and the same", "split"]) == {"train"}


def test_an_image_that_is_also_external_is_kept_there_alone(tmp_path):
    external = Source(name="outside", source="table", table="labels.csv", use="test")
    ours = [row(tmp_path, number) for number in range(20)]
    outside = [row(tmp_path, number, "outside") for number in range(18, 24)]
    found = planned(images(tmp_path, ours + outside, (external,)))
    kept = found[found["reason"].isna()]
    assert set(kept["split"][kept["source"] == "outside"]) == {"external"}
    assert kept["sha256"].is_unique
    left = found[found["reason"].notna()]
    assert list(left["source"]) == ["ours", "ours"]
    assert left["reason"].str.startswith("duplicate: of ").all()


def test_of_identical_images_the_one_that_was_kept_stays(layout, tmp_path):
    rows = [row(tmp_path, number, path=f"some/long/name/{number}.png") for number in range(12)]
    make(layout, images(tmp_path, rows))
    copy = row(tmp_path, 3, path="short.png", patient="ours/another")
    found = planned(images(tmp_path, [*rows, copy]), Previous.read(layout.processed))
    assert found.loc["short.png", "reason"] == "duplicate: of some/long/name/3.png"


def test_an_unknown_patient_is_named_by_source_and_path(tmp_path):
    rows = [row(tmp_path, number) for number in range(12)]
    rows.append(row(tmp_path, 12, patient=None))
    found = planned(images(tmp_path, rows))
    assert found.loc["12.png", "reason"].startswith("unknown patient: ")
    found = planned(images(tmp_path, rows), unknown_patients="own")
    assert found.loc["12.png", "patient"] == "unknown/ours/12.png"
    assert found["unknown"].sum() == 1


def test_images_of_equal_and_of_long_names_have_files_of_their_own(tmp_path):
    names = ["a/x.png", "b/x.png", "b/x.jpeg.png", f"{'ä' * 100}.png", f"{'ä' * 99}b.png"]
    rows = [
        row(tmp_path, 2 * number, path=name, split="train") for number, name in enumerate(names)
    ]
    found = planned(images(tmp_path, rows))
    assert found["file"].is_unique
    assert max(len(Path(file).name.encode()) for file in found["file"]) <= 255
