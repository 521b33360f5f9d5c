import numpy as np
import pandas as pd
import pytest
from cohort import CLASSES, TARGETS, images

from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.subgroups import subgroups
from cxr_serving.model.report import Subgroup


def rows(images: Images, predicted: np.ndarray) -> pd.DataFrame:
    drawn = bootstrap.draws(images.table["patient"])
    found = subgroups(images, np.eye(3)[predicted], CLASSES, drawn)
    table = pd.DataFrame([row.model_dump() for row in found], columns=list(Subgroup.model_fields))
    return table.set_index(["group", "subgroup"])


def test_a_series_of_normal_images_that_is_misclassified_is_seen():
    second = np.array([path.startswith("NORMAL/NORMAL2") for path in images().table["path"]])
    table = rows(images(), np.where(second, 2, TARGETS))
    series = table.loc["series of normal images"]
    assert series["accuracy"].to_dict() == {"IM-": 1, "NORMAL2-IM-": 0}
    assert series["images"].tolist() == [20, 20]
    assert series["interval"].tolist() == [(1, 1), (0, 0)]
    # Images of one class alone have no macro F1.
    assert series["macro_f1"].isna().all()


def test_patients_with_many_images_are_a_subgroup():
    wrong = np.where(TARGETS == 0, 2, TARGETS)
    parts = rows(images(), wrong).loc["images per patient"]
    assert parts["accuracy"].to_dict() == {
        "at most 2 images": 1,
        "more than 2 images": 0,
    }
    assert parts["patients"].tolist() == [80, 10]


def test_quartiles_of_size_only_where_sizes_differ():
    table = rows(images(width=np.arange(120) + 500), TARGETS)
    assert table.loc["width of the image"]["images"].between(29, 31).all()
    assert "height of the image" not in table.index.get_level_values("group")


def test_a_table_has_no_series_whatever_its_files_are_called():
    patients = [f"table/{number}" for number in range(120)]
    groups = rows(images(patient=patients, source="table"), TARGETS).index.unique("group")
    assert "series of normal images" not in groups


def test_each_source_site_sex_view_and_year_is_a_subgroup_where_there_are_several():
    every = np.arange(120)
    known = images(
        source=np.where(every % 2, "b", "a"),
        site=np.where(every < 6, "small", np.where(every % 2, None, "large")),
        sex=np.where(every % 3, "F", "M"),
        view="PA",
        acquired=np.where(every % 2, "2024-12-31", "2025-01-01"),
    )
    wrong = np.where(known.table["site"] == "small", (TARGETS + 1) % 3, TARGETS)
    table = rows(known, wrong)
    assert list(table.loc["source"].index) == ["a", "b"]
    assert list(table.loc["sex"].index) == ["F", "M"]
    assert list(table.loc["year"].index) == ["2024", "2025"]
    assert "view" not in table.index.unique("group")
    site = table.loc["site"]
    assert site["images"].to_dict() == {"large": 57, "small": 6}
    assert site["accuracy"].to_dict() == {"large": 1, "small": 0}
    assert site.loc["large", "macro_f1_interval"] == (1, 1)
    assert site.loc["small", "macro_f1_interval"] is None


def test_the_interval_of_a_macro_f1_is_over_the_classes_of_the_part():
    every = np.arange(120)
    halves = np.where(TARGETS < 2, "two classes", "third")
    row = rows(images(site=halves), np.where(every % 4, TARGETS, 1)).loc["site", "two classes"]
    low, high = row["macro_f1_interval"]
    assert low < row["macro_f1"] < high


def test_a_part_of_few_patients_is_shown_and_marked_and_one_patient_has_no_interval():
    site = np.where(np.arange(120) == 50, "one", np.where(np.arange(120) > 110, "nine", "many"))
    known = images(site=site)
    drawn = bootstrap.draws(known.table["patient"])
    found = {row.subgroup: row for row in subgroups(known, np.eye(3)[TARGETS], CLASSES, drawn)}
    assert [found[name].few for name in ("one", "nine", "many")] == [True, True, False]
    assert [found[name].patients for name in ("one", "nine")] == [1, 9]
    assert found["one"].interval is None
    assert found["nine"].interval == (1, 1)


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0.0, "under 2 years"),
        (1.99, "under 2 years"),
        (2.0, "2 to 4 years"),
        (5.0, "5 to 11 years"),
        (17.9, "12 to 17 years"),
        (64.9, "18 to 64 years"),
        (101.0, "65 years and over"),
    ],
)
def test_ages_are_in_bands_closed_below(age: float, band: str):
    ages = np.where(np.arange(120) < 10, age, 40.0 if age < 18 else 3.0)
    ages[-1] = np.nan
    bands = rows(images(age=ages), TARGETS).loc["age"]
    assert bands.loc[band, "images"] == 10
    assert bands["images"].sum() == 119
