import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_assets.experiment import compose
from cxr_assets.radiographs.split import SplitError, assign_splits
from cxr_assets.sources import Source

LABELS = ("normal", "viral_pneumonia")
DATA = compose("scratch", ["data.folder=x"]).data
TABLE = Source(name="ours", source="table", table="labels.csv")
KAGGLE = Source(name="kaggle", source="folder", folder="chest_xray")


def row(patient: str, split: str | None = None, label: str = "normal", source: str = "ours"):
    return {"source": source, "split": split, "label": label, "patient": f"{source}/{patient}"}


def table(*rows: dict[str, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["source", "split", "label", "patient"]).astype(object)


def many(number: int, **columns: str) -> pd.DataFrame:
    return table(*(row(f"p{n}", label=LABELS[n % 2], **columns) for n in range(number)))


def assign(images, recorded=None, sources=(TABLE, KAGGLE), classes=LABELS, **data):
    settings = DATA.model_copy(update=data)
    return assign_splits(images, sources, settings, classes, recorded or {})


def by_patient(images: pd.DataFrame, splits: pd.Series) -> dict[str, str]:
    return dict(zip(images["patient"], splits, strict=True))


counts = st.lists(st.integers(1, 30), min_size=3, max_size=25)


@settings(deadline=None, max_examples=40)
@given(a=counts, b=counts, seed=st.integers(0, 2**31), fraction=st.floats(0.05, 0.5))
@pytest.mark.parametrize("split", ["train", None])
def test_patients_stay_whole_and_every_class_is_in_every_split(split, a, b, seed, fraction):
    images = table(
        *(row(f"n{i}", split) for i, n in enumerate(a) for _ in range(n)),
        *(row(f"v{i}", split, LABELS[1]) for i, n in enumerate(b) for _ in range(n)),
    )
    if split is not None:
        images["source"] = "kaggle"
    splits = assign(images, seed=seed, val_fraction=fraction, test_fraction=fraction)
    assert splits.groupby(images["patient"]).nunique().max() == 1
    needed = {"train", "val"} if split else {"train", "val", "test"}
    for label in LABELS:
        assert set(splits[images["label"] == label]) == needed


def test_shares_are_those_of_the_settings():
    splits = assign(many(4000), val_fraction=0.1, test_fraction=0.2).value_counts(normalize=True)
    assert splits["val"] == pytest.approx(0.1, abs=0.02)
    assert splits["test"] == pytest.approx(0.2, abs=0.02)


def test_a_draw_depends_on_patient_and_seed_alone():
    images = many(200)
    expected = by_patient(images, assign(images))
    shuffled = images.sample(frac=1, random_state=1)
    assert by_patient(shuffled, assign(shuffled)) == expected
    more = pd.concat([many(300), many(50, source="kaggle", split="train"), many(200)])
    found = by_patient(more, assign(more))
    assert {name: found[name] for name in expected} == expected
    assert by_patient(images, assign(images, seed=6)) != expected


def test_a_given_split_is_respected_and_other_images_of_the_patient_go_with_it():
    images = table(
        *(row("a", "train"), row("b", "val"), row("c", "test"), row("c", None), row("b", None)),
    )
    assert list(assign(images)) == ["train", "val", "test", "test", "val"]


def test_a_source_that_gives_test_draws_none():
    drawn = many(300)
    assert "test" in set(assign(drawn))
    given = table(row("given", "test"), row("other", "test", LABELS[1]))
    images = pd.concat([drawn, given], ignore_index=True)
    assert list(images["patient"][assign(images) == "test"]) == list(given["patient"])
    both = pd.concat([drawn, many(300, source="kaggle", split="train")], ignore_index=True)
    assert set(both["source"][assign(both) == "test"]) == {"ours"}


@pytest.mark.parametrize("source", ["ours", "kaggle"])
def test_images_elsewhere_of_a_patient_in_test_are_left_out(source):
    images = table(
        *(row("n0", "test", source=source), row("n0", "train", source=source)),
        *(row(f"n{n}", "train", source=source) for n in range(1, 9)),
    )
    splits = assign(images)
    assert splits[0] == "test"
    assert splits[1] is None
    assert splits[2:].notna().all()


def test_kaggles_val_is_drawn_again():
    images = many(100, source="kaggle", split="val")
    assert set(assign(images)) == {"train", "val"}


def test_a_patient_in_train_and_val_of_a_table_is_named():
    with pytest.raises(SplitError, match=r"ours/a .*train and in val.*same split"):
        assign(table(row("a", "train"), row("a", "val")))


def test_images_of_one_patient_with_different_classes_stay_together():
    images = pd.concat([many(200), many(200).assign(label="viral_pneumonia")], ignore_index=True)
    splits = assign(images)
    assert splits.groupby(images["patient"]).nunique().max() == 1


def test_sources_for_train_and_for_test_alone():
    outside = Source(name="outside", source="table", table="a.csv", use="train")
    external = Source(name="external-a", source="table", table="b.csv", use="test")
    images = pd.concat(
        [
            many(50),
            many(50, source="outside", split="test"),
            many(50, source="external-a"),
        ],
        ignore_index=True,
    )
    splits = assign(images, sources=(TABLE, outside, external))
    assert set(splits[images["source"] == "outside"]) == {"train"}
    assert set(splits[images["source"] == "external-a"]) == {"external"}
    assert set(splits[images["source"] == "ours"]) == {"train", "val", "test"}


def test_a_recorded_patient_stays_and_does_not_fill_a_split():
    images = table(*(row(f"p{n}") for n in range(3)))
    recorded = {"ours/p0": "train", "ours/p1": "train"}
    found = by_patient(images, assign(images, recorded))
    assert recorded.items() <= found.items()
    assert found["ours/p2"] == "test", "the only one that may move"


@pytest.mark.parametrize(
    ("before", "images"),
    [
        ("train", table(row("a", "test"))),
        ("train", table(row("a", "val"))),
        ("val", table(row("a", "train"))),
        ("test", table(row("a", "train", source="kaggle")).assign(patient="ours/a")),
        ("train", table(row("a", "test"), row("a", "train"))),
    ],
)
def test_a_moved_patient_is_named_with_both_splits_and_a_remedy(before, images):
    now = "train or val" if images["source"][0] == "kaggle" else images["split"][0]
    with pytest.raises(SplitError, match=rf"ours/a was in {before} .*move to {now}.*data\.seed"):
        assign(images, {"ours/a": before})
    unsaid = images.assign(split=None)
    assert set(assign(unsaid, {"ours/a": before})) == {before}, "the remedy works"


def test_use_of_a_source_cannot_move_what_was_trained_on():
    external = TABLE.model_copy(update={"use": "test"})
    with pytest.raises(SplitError, match=r"was in train and would move to external"):
        assign(table(row("a")), {"ours/a": "train"}, sources=(external,))


def test_a_class_without_test_is_drawn_into_it_though_its_source_gives_test():
    images = pd.concat([many(40), table(row("given", "test"))], ignore_index=True)
    moved = images[assign(images) == "test"]
    assert list(moved["label"]) == [LABELS[1], LABELS[0]]


def test_no_split_of_a_class_is_emptied_to_fill_another():
    images = table(row("a"), row("b"), row("c", label=LABELS[1]))
    splits = assign(images, recorded={"ours/a": "train"})
    assert list(splits[:2]) in (["train", "val"], ["train", "test"])
