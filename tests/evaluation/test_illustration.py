from cxr_assets.evaluation.report import latest_report
from cxr_assets.layout import Layout


def test_each_plot_comes_with_its_numbers(reported: Layout) -> None:
    report = latest_report(reported)
    plots = {path.stem for path in report.glob("*.png")}
    assert plots == {path.stem for path in report.glob("*.csv")} - {
        "predictions",
        "external-outside",
    }
    assert {"reliability", "abnormal_roc", "selective", "baseline_selective"} <= plots
