import numpy as np
import pandas as pd
from cohort import CLASSES, TARGETS, films

from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.films import Films
from cxr_assets.evaluation.subgroups import subgroups


def rows(films: Films, predicted: np.ndarray) -> pd.DataFrame:
    drawn = bootstrap.draws(films.table["patient"])
    table = pd.DataFrame(subgroups(films, np.eye(3)[predicted], CLASSES, drawn))
    return table.set_index(["group", "subgroup"])


def test_a_series_of_normal_films_that_is_read_wrong_is_seen():
    second = np.array([path.startswith("NORMAL/NORMAL2") for path in films().table["path"]])
    table = rows(films(), np.where(second, 2, TARGETS))
    series = table.loc["series of normal films"]
    assert series["accuracy"].to_dict() == {"IM-": 1, "NORMAL2-IM-": 0}
    assert series["films"].tolist() == [20, 20]
    assert series["interval"].tolist() == [[1, 1], [0, 0]]
    # Films of one class alone have no macro F1.
    assert series["macro_f1"].isna().all()


def test_children_with_many_films_are_told_from_others():
    wrong = np.where(TARGETS == 0, 2, TARGETS)
    parts = rows(films(), wrong).loc["films of the same child"]
    assert parts["accuracy"].to_dict() == {
        "at most 2 films of the child": 1,
        "more films of the child": 0,
    }
    assert parts["patients"].tolist() == [80, 10]


def test_quarters_by_size_where_sizes_differ_and_none_where_they_do_not():
    table = rows(films(width=np.arange(120) + 500), TARGETS)
    assert table.loc["width of the film"]["films"].between(29, 31).all()
    assert "height of the film" not in table.index.get_level_values("group")
