import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_assets.radiographs.split import SplitError, assign_splits


def images(patients: dict[str, list[tuple[str, int, str]]]) -> pd.DataFrame:
    rows = [
        {
            "path": f"{split}/{label}/{patient}-{n}",
            "split": split,
            "label": label,
            "patient": patient,
        }
        for label, entries in patients.items()
        for patient, count, split in entries
        for n in range(count)
    ]
    return pd.DataFrame(rows)


counts = st.lists(st.integers(1, 30), min_size=2, max_size=25)


@settings(deadline=None, max_examples=40)
@given(a=counts, b=counts, seed=st.integers(0, 2**31), fraction=st.floats(0.05, 0.5))
def test_patients_stay_whole_and_every_class_is_in_train_and_val(a, b, seed, fraction):
    table = images(
        {
            "normal": [(f"n{i}", n, "train" if i % 3 else "val") for i, n in enumerate(a)],
            "viral_pneumonia": [(f"v{i}", n, "train") for i, n in enumerate(b)],
        }
    )
    splits = assign_splits(table, fraction, seed)
    assert splits.groupby(table["patient"]).nunique().max() == 1
    for label in ("normal", "viral_pneumonia"):
        assert set(splits[table["label"] == label]) == {"train", "val"}


def test_split_depends_on_the_images_and_the_seed_not_on_their_order():
    table = images({"normal": [(f"n{i}", 3, "train") for i in range(40)]})
    shuffled = table.sample(frac=1, random_state=1)
    assert assign_splits(shuffled, 0.2, 5).sort_index().equals(assign_splits(table, 0.2, 5))
    assert not assign_splits(table, 0.2, 6).equals(assign_splits(table, 0.2, 5))


def test_test_is_untouched_and_its_patients_are_kept_out_of_training():
    table = images(
        {"normal": [("n0", 2, "test"), ("n0", 3, "train"), ("n1", 2, "train"), ("n2", 2, "val")]}
    )
    splits = assign_splits(table, 0.5, 0)
    assert set(splits[table["split"] == "test"]) == {"test"}
    assert splits[(table["patient"] == "n0") & (table["split"] == "train")].isna().all()


def test_a_class_with_one_patient_is_rejected():
    with pytest.raises(SplitError, match="viral_pneumonia"):
        assign_splits(images({"viral_pneumonia": [("v0", 5, "train")]}), 0.2, 0)
