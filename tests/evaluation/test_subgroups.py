import numpy as np
import pandas as pd
from cohort import CLASSES, TARGETS, images

from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.subgroups import subgroups


def rows(images: Images, predicted: np.ndarray) -> pd.DataFrame:
    drawn = bootstrap.draws(images.table["patient"])
    table = pd.DataFrame(
        [row.model_dump() for row in subgroups(images, np.eye(3)[predicted], CLASSES, drawn)]
    )
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
