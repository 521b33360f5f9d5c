import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from cxr_assets import decisions
from cxr_assets.decisions import Decision
from cxr_assets.evaluation import bootstrap, images, past, regression
from cxr_assets.evaluation.regression import SMALL_SITES, NotComparable
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import MANIFEST_FILE
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.report import FEW_PATIENTS

OLD, OLDER = "20260101T000000Z-00000000", "20250101T000000Z-00000000"


@pytest.fixture
def ours(layout: Layout) -> BundleRecord:
    """The record of the main model; a copy of the model is the released one."""
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.releases / OLD)
    store.write_pointer(layout.releases, OLD)
    return BundleRecord.read(main)


def rename(layout: Layout, split: str, number: int) -> None:
    """The first test images are now of the patient of an image of ``split``."""
    path = layout.processed / MANIFEST_FILE
    rows = pd.read_parquet(path)
    theirs = rows.loc[rows["split"] == split, "patient"].iloc[0]
    rows.loc[rows.index[rows["split"] == "test"][:number], "patient"] = theirs
    rows.to_parquet(path)


@pytest.mark.parametrize(("split", "left_out"), [("train", 2), ("val", 2), ("test", 0)])
def test_images_of_patients_that_the_champion_learnt_from_are_left_out(
    layout: Layout, ours: BundleRecord, split: str, left_out: int
) -> None:
    rename(layout, split, 2)
    champion = regression.champion(layout, images.test_split(layout.processed), ours)
    assert champion is not None
    assert (~champion.unseen).sum() == left_out


def test_a_champion_that_learnt_from_every_patient_cannot_be_compared(
    layout: Layout, ours: BundleRecord
) -> None:
    rename(layout, "train", 1000)
    with pytest.raises(NotComparable, match="every patient of the test split"):
        regression.champion(layout, images.test_split(layout.processed), ours)


def test_a_champion_with_other_classes_or_of_another_format_cannot_be_compared(
    layout: Layout, ours: BundleRecord
) -> None:
    test = images.test_split(layout.processed)
    other = ours.model_copy(update={"classes": ("abnormal", "normal")})
    with pytest.raises(NotComparable, match="its classes are bacterial_pneumonia, normal"):
        regression.champion(layout, test, other)
    path = layout.releases / OLD / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1}))
    with pytest.raises(NotComparable, match="another version of this program") as caught:
        regression.champion(layout, test, ours)
    assert str(layout.root) not in str(caught.value), "it is published"


def test_a_released_version_is_compared_with_the_one_that_it_took_the_place_of(
    layout: Layout, ours: BundleRecord
) -> None:
    assert past.champion(layout, ours.asset, OLD) is None, "the first one"
    decision = Decision(
        version=OLD, champion=OLDER, decided_at=datetime.now(UTC), decision="released",
        clauses=[], by=None, because=None, pushed=None,
    )  # fmt: skip
    decisions.record(layout, decision)
    assert past.champion(layout, ours.asset, OLD) is None, "it was deleted since"
    shutil.copytree(layout.releases / OLD, layout.releases / OLDER)
    assert past.champion(layout, ours.asset, OLD) == layout.releases / OLDER
    assert past.champion(layout, ours.asset, ours.version) == layout.releases / OLD


def test_small_sites_are_compared_as_one_and_a_source_without_sites_is_one() -> None:
    size = FEW_PATIENTS
    table = pd.DataFrame(
        {
            "site": ["north"] * size + ["south"] * 3 + ["east"] * 2 + [None] * size,
            "source": "ours",
            "patient": [str(number) for number in range(2 * size + 5)],
        }
    )
    named = regression._sites(table)
    assert named.value_counts().to_dict() == {"north": size, "ours": size, SMALL_SITES: 5}
    gains = np.zeros(len(table))
    gains[:3] = -1
    member = (named == "north").to_numpy()
    drawn = bootstrap.draws(table["patient"])
    found = regression._at_site(gains, member, table["patient"], drawn)
    assert (found.images, found.patients) == (size, size)
    assert found.estimate == pytest.approx(-3 / size)
    assert found.interval is not None
    assert found.interval[0] < found.estimate < found.interval[1] <= 0
    assert np.isclose(regression._at_site(gains, ~member, table["patient"], drawn).estimate, 0)
