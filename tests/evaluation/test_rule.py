import pytest
import reports

from cxr_assets.evaluation.rule import judge
from cxr_assets.groups import Rule
from cxr_serving.model.comparison import Regression, SiteDifference
from cxr_serving.model.report import Clause, Report

RULE = Rule(
    margin=0.02, non_inferiority=0.03, class_loss=0.05, site_loss=0.04, calibration_error=0.06
)


def regression(**changes: object) -> Regression:
    same = reports.difference(0, -0.02, 0.02)
    return Regression(
        released="20260101T000000Z-00000000",
        same_data=False,
        images=600,
        patients=500,
        left_out=24,
        macro_f1=same,
        accuracy=same,
        auroc_macro_ovr=None,
        classes={"normal": same, "viral_pneumonia": same},
        sites={"north": site(0)},
    ).model_copy(update=changes)


def site(loss: float, patients: int = 100) -> SiteDifference:
    return SiteDifference(estimate=loss, interval=None, p=1, images=patients, patients=patients)


def clauses(report: Report) -> dict[str, Clause]:
    return {clause.name: clause for clause in judge(report, RULE)}


def against(**changes: object) -> dict[str, Clause]:
    return clauses(reports.report(regression=regression(**changes)))


def test_a_first_model_has_nothing_to_be_worse_than() -> None:
    found = clauses(reports.report())
    assert all(clause.passed for clause in found.values())
    for name in ("not_worse_than_released", "no_class_worse", "no_site_worse"):
        assert found[name].text == "There is no released model to compare with."
        assert found[name].figure is None


def test_a_released_model_that_cannot_be_compared_fails_these_clauses_with_the_reason() -> None:
    found = clauses(reports.report(not_compared="it is broken"))
    assert [name for name, clause in found.items() if not clause.passed] == [
        "not_worse_than_released",
        "no_class_worse",
        "no_site_worse",
    ]
    assert found["no_site_worse"].text == "Not compared with the released model: it is broken."


@pytest.mark.parametrize(("low", "passed"), [(0.02, True), (0.019, False), (-0.01, False)])
def test_the_lower_end_of_the_interval_must_reach_the_margin(low: float, passed: bool) -> None:
    difference = reports.difference(0.05, low, 0.09)
    comparison = reports.report().comparison.model_copy(update={"macro_f1": difference})
    clause = clauses(reports.report(comparison=comparison))["beats_probe"]
    assert (clause.passed, clause.figure, clause.limit) == (passed, 0.05, 0.02)


def test_a_model_without_a_probe_does_not_beat_it() -> None:
    assert not clauses(reports.report(comparison=None))["beats_probe"].passed


@pytest.mark.parametrize(("low", "passed"), [(-0.03, True), (-0.031, False)])
def test_the_lower_end_may_lose_no_more_than_the_non_inferiority(low: float, passed: bool) -> None:
    found = against(macro_f1=reports.difference(0.01, low, 0.05))["not_worse_than_released"]
    assert found.passed is passed
    assert found.text == (
        "Macro F1 less that of the released model 20260101T000000Z-00000000: "
        f"0.010 ({low:.3f} to 0.050), on 600 images of 500 patients that neither has learnt from. "
        "The lower end of the interval must be at least -0.03."
    )


@pytest.mark.parametrize(("loss", "passed"), [(-0.05, True), (-0.051, False)])
def test_no_class_may_lose_more_recall_than_the_limit(loss: float, passed: bool) -> None:
    classes = {
        "normal": reports.difference(0.2, 0.1, 0.3),
        "viral_pneumonia": reports.difference(loss, -0.2, 0.1),
    }
    found = against(classes=classes)["no_class_worse"]
    assert (found.passed, found.figure, found.interval) == (passed, loss, (-0.2, 0.1))
    assert "viral pneumonia" in found.text


def test_a_class_that_cannot_be_compared_is_named_and_fails() -> None:
    found = against(classes={"normal": reports.difference(0, 0, 0), "viral_pneumonia": None})
    assert not found["no_class_worse"].passed
    assert "Without images to compare on: viral pneumonia" in found["no_class_worse"].text


@pytest.mark.parametrize(("loss", "passed"), [(-0.04, True), (-0.041, False)])
def test_no_site_may_lose_more_accuracy_than_the_limit(loss: float, passed: bool) -> None:
    found = against(sites={"north": site(0), "south": site(loss)})["no_site_worse"]
    assert (found.passed, found.figure) == (passed, loss)


def test_a_site_with_too_few_patients_is_not_judged() -> None:
    found = against(sites={"north": site(0), "south": site(-0.5, patients=29)})["no_site_worse"]
    assert (found.passed, found.figure) == (True, 0)
    found = against(sites={"south": site(-0.5, patients=29)})["no_site_worse"]
    assert found.passed
    assert "too few to judge" in found.text


@pytest.mark.parametrize(("limit", "passed"), [(0.05, True), (0.049, False)])
def test_the_calibration_error_as_served_must_be_within_the_limit(
    limit: float, passed: bool
) -> None:
    rule = RULE.model_copy(update={"calibration_error": limit})
    [found] = [one for one in judge(reports.report(), rule) if one.name == "calibrated"]
    assert (found.passed, found.figure) == (passed, 0.05)
