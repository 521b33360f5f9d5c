from datetime import date

import pandas as pd

from cxr_assets.radiographs import changes
from cxr_serving.model.dataset import Change


def manifest(*rows: tuple[str, str, str, str, str | None]) -> pd.DataFrame:
    columns = ["path", "split", "class", "sha256", "site"]
    return pd.DataFrame(rows, columns=columns).assign(source="ours", kept=True)


DAY = date(2026, 1, 4)
BEFORE = manifest(
    ("a", "train", "normal", "1", "north"),
    ("b", "train", "normal", "2", "north"),
    ("c", "test", "viral_pneumonia", "3", None),
    ("d", "val", "normal", "4", "south"),
)
AFTER = manifest(
    ("a", "train", "viral_pneumonia", "1", "north"),
    ("b", "val", "normal", "20", "north"),
    ("c", "test", "viral_pneumonia", "3", None),
    ("e", "train", "normal", "5", None),
    ("f", "train", "viral_pneumonia", "6", "south"),
)


def test_every_kind_of_change_is_counted_by_class_and_site():
    found = changes.between(BEFORE, AFTER, "v1", DAY)
    assert found.since == "v1"
    assert found.total == Change(added=2, removed=1, relabelled=1, moved=1, replaced=1)
    assert found.classes == {
        "normal": Change(added=1, removed=1, moved=1, replaced=1),
        "viral_pneumonia": Change(added=1, relabelled=1),
    }
    assert found.sites == {
        "north": Change(relabelled=1, moved=1, replaced=1),
        "south": Change(added=1, removed=1),
    }


def test_an_image_that_is_no_longer_kept_is_removed():
    left_out = BEFORE.assign(kept=BEFORE["path"] != "c")
    assert changes.between(BEFORE, left_out, "v1", DAY).total == Change(removed=1)


def test_the_table_has_a_row_for_all_and_one_for_each_class_and_site():
    table = changes.table(changes.between(BEFORE, AFTER, "v1", DAY))
    assert list(table.index) == ["all", "normal", "viral_pneumonia", "site north", "site south"]
    assert table.loc["all", "added"] == 2
    assert table.loc["site north", "moved"] == 1


def test_one_sentence_says_it():
    assert changes.sentence(None) == "This is the first dataset."
    same = changes.between(BEFORE, BEFORE, "v1", DAY)
    assert changes.sentence(same) == "The dataset of 2026-01-04 has the images of the one before."
    assert changes.sentence(changes.between(BEFORE, AFTER, "v1", DAY)) == (
        "Images in the dataset of 2026-01-04 since the one before: "
        "2 added (1 normal, 1 viral pneumonia), 1 removed (1 normal), "
        "1 relabelled (1 viral pneumonia), 1 moved to another split (1 normal), "
        "1 replaced (1 normal)."
    )
