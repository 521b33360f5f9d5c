"""Versions are what stands in records and fingerprints: the same data must keep them for ever."""

import math
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest
from radiographs import handmade

from cxr_assets.radiographs import decoding, identity, inventory, listing
from cxr_assets.radiographs.selection import select

# Versions of the rows below, as this program has computed them ever since.
DATA = "0fca2b5224070a4a4590704b55f26b360122693def44f7c595e92512d49f93da"
LISTED = "1b1eb7d75823c48bfcd309e9fcabdf0214d71eba534e271c188f2772ee422118"
PLANNED = "1eb7100ae4356e3922532d77e6475a33d421d886beb00d56d39aae08d99bfcb1"
NOTHING = sha256(b"").hexdigest()
NAMES = ("ü", "u\u0308", "中", "\U0001f600", "\uffff")
PATHS = (*(f"{name}/1" for name in NAMES), "a\0b", "a", "", 'a"\\', "a\n", "Z", "z")
PROBLEMS = (None, None, "view: 'LL' is not frontal (row 7)", "odd", "a: b: c")


def rows() -> list[handmade.Row]:
    """Odd paths, ages and problems, of two sources, and each path twice."""
    found = []
    for number in range(72):
        path = PATHS[number % len(PATHS)]
        columns = {
            "path": path if number < 36 else f"{path}{number % 24}",
            "split": (None, "train", "test")[number % 3],
            "sha256": None if number % 7 == 0 else f"{number * 7919 % 30:064x}",
            "age": (math.nan, 34.0, 6.5, 0.1 + 0.2, 1 / 3, 0.0)[number % 6],
            "site": (None, "north", "süd")[number % 3],
            "acquired": (None, "2024-03-04")[number % 2],
            "problem": PROBLEMS[number % 5],
        }
        if number % 11 == 0:
            columns |= {"label": None, "patient": None}
        source = ("ours", "theirs")[number % 2]
        found.append(handmade.row(Path("nowhere"), number, source, **columns))
    return found


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_BATCH", 5)
    monkeypatch.setattr(identity, "_BATCH", 5)
    monkeypatch.setattr(decoding, "version", lambda: "1")


@pytest.mark.parametrize("seed", range(3))
def test_the_data_version_is_that_of_the_sorted_rows(seed: int) -> None:
    found = handmade.images(Path("nowhere"), rows()).inventory.sample(frac=1, random_state=seed)
    assert inventory.data_version(found) == DATA
    assert inventory.data_version(found.iloc[1:]) != DATA
    assert inventory.data_version(found.iloc[:0]) == NOTHING


def test_the_version_of_a_dataset_is_that_of_its_plan() -> None:
    raw = handmade.images(Path("nowhere"), rows())
    planned = select(raw, handmade.data(), handmade.CLASSES, None)
    assert identity.of(planned, raw, handmade.data(), handmade.CLASSES) == PLANNED


def test_the_version_of_a_listed_table() -> None:
    table = pd.DataFrame(rows()).assign(row=range(72))
    table["row"] = table["row"].astype("float64")
    finished = listing.finished(table)
    assert inventory.data_version(finished) == LISTED
