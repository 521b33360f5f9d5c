import pandas as pd

from cxr_assets.radiographs import copies
from cxr_assets.sources import Source

TABLE = Source(name="table", source="table", table="labels.csv")
FOLDER = Source(name="folder", source="folder", folder="images")


def reasons(*rows: tuple[str, str, str, str, str]) -> list[str | None]:
    columns = ["source", "path", "split", "class", "pixels"]
    images = pd.DataFrame(rows, columns=columns).assign(kept=True, reason=None)
    copies.leave_out(images, [TABLE, FOLDER])
    return images["reason"].tolist()


def test_of_the_same_pixels_the_one_in_test_is_kept() -> None:
    assert reasons(
        ("table", "a.dcm", "train", "normal", "1"),
        ("table", "b.png", "test", "normal", "1"),
        ("table", "c.png", "val", "normal", "1"),
        ("table", "d.png", "train", "normal", "2"),
    ) == [
        "duplicate: the same pixels as b.png",
        None,
        "duplicate: the same pixels as b.png",
        None,
    ]


def test_the_same_pixels_with_two_classes_are_a_conflict() -> None:
    assert reasons(
        ("table", "a.dcm", "train", "normal", "1"),
        ("folder", "b.png", "test", "viral_pneumonia", "1"),
    ) == [
        "conflict: the same pixels as b.png, which is of another class",
        "conflict: the same pixels as a.dcm, which is of another class",
    ]


def test_the_test_split_of_a_folder_is_unchanged_that_of_a_table_counts_an_image_once() -> None:
    pair = [("a.png", "test", "normal", "1"), ("b.png", "test", "normal", "1")]
    assert reasons(*(("folder", *row) for row in pair)) == [None, None]
    assert reasons(*(("table", *row) for row in pair)) == [
        None,
        "duplicate: the same pixels as a.png",
    ]


def test_images_that_are_left_out_for_another_reason_do_not_count() -> None:
    images = pd.DataFrame(
        {
            **{"source": "table", "path": ["a.png", "b.png"], "split": "train"},
            **{"class": "normal", "pixels": [None, "1"], "kept": [False, True]},
            "reason": ["corrupt: it is cut short", None],
        }
    )
    copies.leave_out(images, [TABLE])
    assert images["reason"].tolist() == ["corrupt: it is cut short", None]
