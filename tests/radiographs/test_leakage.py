from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from radiographs import handmade

from cxr_assets.layout import Layout
from cxr_assets.radiographs import dataset, leakage
from cxr_assets.sources import Source

OUTSIDE = Source(name="outside", source="table", table="labels.csv", use="test")


def names(*rows: tuple[str, str, str]) -> pd.DataFrame:
    columns = ["source", "path", "split"]
    return pd.DataFrame(rows, columns=columns).assign(**{"class": "normal"})


def test_names_are_compared_within_a_source():
    train, test = "train/NORMAL/IM-0007-0001.jpeg", "test/NORMAL/IM-0007-0009.jpeg"
    [pair] = leakage.by_name(names(("a", train, "train"), ("a", test, "test")))
    assert pair == (f"a/{train}", f"a/{test}", "same number in the name")
    assert not leakage.by_name(names(("a", train, "train"), ("b", test, "test")))


def test_names_of_a_table_say_nothing(layout, tmp_path):
    splits = ("train", "val", "test")
    rows = [
        handmade.row(tmp_path, n, path=f"IM-0001-{n:04}.png", split=splits[n // 2])
        for n in range(6)
    ]
    handmade.make(layout, handmade.images(tmp_path, rows))
    assert leakage.pairs_across_splits(layout.processed) == []
    folder = Source(name="ours", source="folder", folder=tmp_path)
    handmade.make(layout, handmade.images(tmp_path, rows, (folder,)), seed=1)
    assert {pair.why for pair in leakage.pairs_across_splits(layout.processed)} == {
        "same number in the name"
    }


def brighter(root: Path, number: int, source: str, path: str) -> None:
    """A copy that is another file, of other pixels."""
    handmade.write(root / "ours" / f"{number}.png", number)
    (root / source).mkdir(exist_ok=True)
    with Image.open(root / "ours" / f"{number}.png") as image:
        image.point(lambda level: 30 + level * 0.8).save(root / source / path)


@pytest.mark.parametrize(("split", "found"), [("train", 1), ("val", 1), ("test", 0)])
def test_an_image_saved_again_in_external_leaks_from_all_but_test(split, found, layout, tmp_path):
    splits = ("train", "val", "test")
    rows = [handmade.row(tmp_path, n, split=splits[n // 2]) for n in range(6)]
    number = 2 * splits.index(split)
    brighter(tmp_path, number, "outside", "again.png")
    rows.append(handmade.row(tmp_path, number, "outside", path="again.png"))
    handmade.make(layout, handmade.images(tmp_path, rows, (OUTSIDE,)))
    pairs = leakage.pairs_across_splits(layout.processed)
    assert [{pair.first, pair.second} for pair in pairs] == found * [
        {f"ours/{number}.png", "outside/again.png"}
    ]


def test_a_patient_in_two_splits_of_the_manifest_is_found(layout: Layout, tmp_path):
    rows = [handmade.row(tmp_path, n) for n in range(12)]
    handmade.make(layout, handmade.images(tmp_path, rows))
    manifest = dataset.manifest(layout.processed).assign(patient="ours/one")
    manifest.to_parquet(layout.processed / dataset.MANIFEST_FILE)
    whys = [pair.why for pair in leakage.pairs_across_splits(layout.processed)]
    assert whys == 2 * ["same patient in the manifest"]


def test_the_same_image_is_found_within_a_split_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(one).resize((64, 64))
        for one in rng.integers(60, 256, (6, 16, 16), dtype=np.uint8)
    ]
    pictures[3] = pictures[1].point(lambda level: level - 40)
    pictures[5] = pictures[1].resize((32, 32)).resize((64, 64))
    images = pd.DataFrame({"split": ["train"] * 6, "class": list("aabbab")})
    images["file"] = [f"{number}.png" for number in range(6)]
    for picture, file in zip(pictures, images["file"], strict=True):
        picture.save(tmp_path / file)
    within = leakage.similar(tmp_path, images, 64, within_splits=True)
    assert sorted(pair[:2] for pair in within) == [(1, 3), (1, 5), (3, 5)]
    assert all(leakage.SIMILAR <= similarity <= 1.001 for *_, similarity in within)
    assert leakage.similar(tmp_path, images, 64, within_splits=False) == []
