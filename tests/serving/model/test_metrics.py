import pytest
from pydantic import ValidationError
from reports import of_model

from cxr_serving.model.metrics import ClassificationReport

ROW = {"precision": 0.5, "recall": 0.5, "f1-score": 0.5, "support": 4}


def test_a_classification_report_has_the_keys_of_scikit_learn() -> None:
    rows = {"normal": ROW, "accuracy": 0.5, "macro avg": ROW, "weighted avg": ROW}
    report = ClassificationReport.model_validate(rows)
    assert report.model_dump(mode="json") == rows
    assert list(report.classes) == ["normal"]
    with pytest.raises(ValidationError, match="normal"):
        ClassificationReport.model_validate(rows | {"normal": {"precision": 0.5}})


def test_a_headline_comes_with_its_interval() -> None:
    assert of_model().headline("macro_f1") == (0.75, (0.6, 0.8))
    assert of_model(auroc_macro_ovr=None).headline("auroc_macro_ovr")[0] is None
