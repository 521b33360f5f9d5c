import pandas as pd

from cxr_assets.radiographs import conflicts


def problems(*rows: tuple[str, str, str, str | None, str | None, str | None]) -> list[str]:
    """Kinds of the problems of rows of source, path, hash, label, patient and split."""
    names = ["source", "path", "sha256", "label", "patient", "split"]
    table = pd.DataFrame(rows, columns=names, dtype=object)
    table["given_label"] = table["label"]
    table["problem"] = pd.Series(None, index=table.index, dtype=object)
    return conflicts.mark(table).fillna("").str.partition(":")[0].tolist()


ONE = ("a", "1.png", "h", "normal", "a/p", None)


def test_the_same_image_with_two_labels_is_a_conflict_in_any_sources():
    other = ("b", "x.png", "h", "viral", "b/q", None)
    assert problems(ONE, other) == ["conflict", "conflict"]
    assert problems(ONE, ("b", "x.png", "h2", "viral", "b/q", None)) == ["", ""]


def test_the_same_image_of_two_patients_is_a_conflict_in_one_source():
    assert problems(ONE, ("a", "2.png", "h", "normal", "a/q", None)) == ["conflict", "conflict"]
    assert problems(ONE, ("a", "2.png", "h", "normal", None, None)) == ["", ""]
    assert problems(ONE, ("b", "2.png", "h", "normal", "b/q", None)) == ["", ""]


def test_the_same_file_in_two_splits_is_a_conflict():
    rows = [(*ONE[:5], split) for split in ("train", "test")]
    assert problems(*rows) == ["conflict", "conflict"]


def test_of_rows_with_the_same_file_and_label_the_one_that_says_most_is_kept():
    assert problems(ONE, ONE) == ["", "duplicate"]
    assert problems((*ONE[:4], None, None), ONE) == ["duplicate", ""]
    assert problems(ONE, (*ONE[:5], "test")) == ["duplicate", ""]


def test_many_contradictions_are_listed_in_short():
    rows = [("a", f"{number}.png", "h", f"label {number}", None, None) for number in range(9)]
    table = pd.DataFrame(rows, columns=["source", "path", "sha256", "label", "patient", "split"])
    table = table.astype(object).assign(given_label="", problem=None)
    assert "label 0, label 1, label 2 and others" in conflicts.mark(table).iloc[0]
