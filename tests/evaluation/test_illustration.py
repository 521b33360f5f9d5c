from dataclasses import replace

from reporting import bundles

from cxr_assets.evaluation import illustration, images
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.evaluation.scoring import evaluate_models
from cxr_assets.layout import Layout
from cxr_serving.model.predictor import Predictor


def test_each_plot_comes_with_its_numbers(reported: Layout) -> None:
    report = latest_report(reported)
    plots = {path.stem for path in report.glob("*.png")}
    tables = {path.stem for path in report.glob("*.csv")}
    assert plots == tables - {"predictions", "external-outside"}
    assert {"reliability", "abnormal_roc", "selective", "baseline_selective"} <= plots


def test_what_was_not_recorded_or_is_not_defined_is_not_drawn(layout: Layout) -> None:
    found = images.test_split(layout.processed)
    (model,) = evaluate_models([Predictor(bundles(layout)[0])], found).models
    targets = found.targets(model.record.classes)
    whole = illustration.draw(model, None, targets, synthetic=True)
    assert {"learning_curves", "abnormal_roc"} <= whole.keys()
    assert not any(name.startswith("baseline_") for name in whole)
    metrics = model.metrics.model_copy(update={"abnormal": None})
    less = illustration.draw(
        replace(model, history=None, metrics=metrics), None, targets, synthetic=True
    )
    assert whole.keys() - less.keys() == {"learning_curves", "abnormal_roc"}
