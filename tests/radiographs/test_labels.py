import pandas as pd
import pytest

from cxr_assets.radiographs.inventory import RawDataError
from cxr_assets.radiographs.labels import Words

CLASSES = ("normal", "pneumonia")


def test_words_and_names_of_classes_count_without_case_and_blanks():
    words = Words({"Infiltrate ": "pneumonia"}, CLASSES)
    label, problem = words.classify(pd.Series(["infiltrate", " NORMAL", "Infiltrate", "Pneumonia"]))
    assert label.tolist() == ["pneumonia", "normal", "pneumonia", "pneumonia"]
    assert problem.isna().all()


def test_what_is_no_class_is_named_and_nothing_is_guessed():
    words = Words({"poor": None, "Infiltrate": "pneumonia"}, CLASSES)
    label, problem = words.classify(pd.Series(["poor", "", "infiltrates"]))
    assert label.isna().all()
    assert problem[0] == "excluded: data.labels leaves out 'poor'"
    assert problem[1] == "label: there is none"
    assert problem[2].startswith("label: 'infiltrates' is no class (normal, pneumonia)")
    assert "such as 'infiltrate'" in problem[2]


def test_a_word_may_leave_out_a_class():
    assert Words({"normal": None}, CLASSES).meaning("Normal")[0] is None


def test_one_word_with_two_meanings_is_an_error():
    with pytest.raises(RawDataError, match="'Viral' and 'viral'"):
        Words({"Viral": "pneumonia", "viral": None}, CLASSES)
