import json

import numpy as np
import pandas as pd
import pytest
from reporting import bundles
from tiny import CLASSES

from cxr_assets.evaluation.metrics import evaluate
from cxr_assets.evaluation.report import write_report
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DATASET_FILE, MANIFEST_FILE
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import External, Report


@pytest.mark.parametrize("name", ["predictions", "external-outside"])
def test_every_number_follows_from_the_predictions(name: str, reported: Layout) -> None:
    report = latest_report(reported)
    metrics: Report | External = Report.read(report)
    if name != "predictions":
        metrics = Report.read(report).external["outside"]
    table = pd.read_csv(report / f"{name}.csv", dtype={f"model_{c}": np.float32 for c in CLASSES})
    assert len(table) == metrics.images
    targets = np.array([CLASSES.index(label) for label in table["target"]])
    for role, part in zip(("model", "baseline"), metrics.models, strict=True):
        probabilities = table[[f"{role}_{label}" for label in CLASSES]].to_numpy(np.float32)
        for key, value in evaluate(probabilities, targets, CLASSES):
            assert getattr(part, key) == value


def test_the_margin_is_the_difference_to_the_baseline(reported: Layout) -> None:
    metrics = Report.read(latest_report(reported))
    assert metrics.baseline is not None
    assert metrics.margin == pytest.approx(metrics.macro_f1 - metrics.baseline.macro_f1, abs=1e-6)


def test_the_probabilities_are_those_of_the_serving_predictor(reported: Layout) -> None:
    report = latest_report(reported)
    table = pd.read_csv(report / "predictions.csv")
    predictor = Predictor(bundles(reported)[0])
    for _, row in table.iloc[::5].iterrows():
        image = predictor.preprocessing.decode(reported.processed / row["path"]).pixels
        expected = predictor.predict(image[None])[0]
        assert row[[f"model_{name}" for name in CLASSES]].to_numpy(float) == pytest.approx(
            expected, abs=1e-5
        )


def test_an_external_source_has_all_metrics_and_those_of_absent_classes_are_none(
    reported: Layout,
) -> None:
    external = Report.read(latest_report(reported)).external["outside"]
    assert (external.images, external.patients, external.unknown_patients) == (8, 8, 0)
    assert external.absent_classes == ("viral_pneumonia",)
    assert external.intervals.macro_f1
    for part in external.models:
        assert part.classification_report.classes["viral_pneumonia"].recall is None
        assert part.intervals.classes["viral_pneumonia"].recall is None
        assert part.auroc_ovr["viral_pneumonia"] is None
    assert {row.subgroup for row in external.subgroups if row.group == "site"} == {
        "east",
        "north",
        "west",
    }


def test_an_external_source_changes_neither_headline_nor_threshold_nor_clause(
    reported: Layout,
) -> None:
    rule = compose("demo").release.rule
    before = Report.read(write_report(reported, *bundles(reported), rule=rule))
    manifest = pd.read_parquet(reported.processed / MANIFEST_FILE)
    manifest[manifest["split"] != "external"].to_parquet(reported.processed / MANIFEST_FILE)
    record = json.loads((reported.processed / DATASET_FILE).read_text())
    del record["counts"]["external"]
    (reported.processed / DATASET_FILE).write_text(json.dumps(record))
    after = Report.read(write_report(reported, *bundles(reported), rule=rule))
    assert before.external
    assert not after.external
    kept = {"created_at", "dataset", "external"}
    assert after.model_dump(exclude=kept) == before.model_dump(exclude=kept)
    assert after.clauses == before.clauses != []
