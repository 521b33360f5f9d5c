"""The rule for release: what a report says about each of its clauses."""

from collections.abc import Mapping

from cxr_assets.evaluation.wording import score, words
from cxr_assets.groups import Rule
from cxr_serving.model.comparison import Difference, Regression
from cxr_serving.model.report import FEW_PATIENTS, Clause, Report

FIRST = "There is no released model to compare with."


def judge(report: Report, rule: Rule) -> list[Clause]:
    """Every clause of the rule; a model is released without a person if all are passed.

    A difference from the probe or the released model counts with the lower end of its interval:
    it has to stand out from chance. Those of a single class or site count as they are,
    because their intervals are wide; a class is judged by its recall, since every error is a loss
    of the recall of exactly one class, whatever the share of that class.

    Args:
        report: on the model, with the comparisons; its own clauses are not read.
        rule: the limits.
    """
    return [
        _beats_probe(report, rule.margin),
        *(
            against(report.regression, rule)
            if report.regression
            else _without(report.not_compared, rule)
        ),
        _calibrated(report, rule.calibration_error),
    ]


def against(found: Regression, rule: Rule) -> list[Clause]:
    """The clauses on the comparison with the released model."""
    return [
        _not_worse(found, rule.non_inferiority),
        _no_class_worse(found, rule.class_loss),
        _no_site_worse(found, rule.site_loss),
    ]


def _without(reason: str | None, rule: Rule) -> list[Clause]:
    """The same where there is no comparison: passed if there is no released model either."""
    return [
        Clause(
            name=name,
            figure=None,
            interval=None,
            limit=limit,
            passed=reason is None,
            text=f"Not compared with the released model: {reason}." if reason else FIRST,
        )
        for name, limit in (
            ("not_worse_than_released", rule.non_inferiority),
            ("no_class_worse", rule.class_loss),
            ("no_site_worse", rule.site_loss),
        )
    ]


def _beats_probe(report: Report, margin: float) -> Clause:
    difference = report.comparison.macro_f1 if report.comparison else None
    return _lower_end(
        "beats_probe",
        difference,
        margin,
        margin,
        "Macro F1 less that of the probe: {figure}.",
    )


def _not_worse(found: Regression, limit: float) -> Clause:
    return _lower_end(
        "not_worse_than_released",
        found.macro_f1,
        limit,
        0 - limit,
        f"Macro F1 less that of the released model {found.released}: {{figure}}, on {_on(found)}.",
    )


def _lower_end(
    name: str, difference: Difference | None, limit: float, least: float, text: str
) -> Clause:
    interval = difference.interval if difference else None
    figure = score(difference.estimate, interval) if difference else "not known"
    return Clause(
        name=name,
        figure=difference.estimate if difference else None,
        interval=interval,
        limit=limit,
        passed=interval is not None and interval[0] >= least,
        text=f"{text.format(figure=figure)} The lower end of the interval must be at least "
        f"{least:g}.",
    )


def _no_class_worse(found: Regression, limit: float) -> Clause:
    without = [words(name) for name, change in found.classes.items() if change is None]
    changes = {words(name): change for name, change in found.classes.items() if change}
    clause = _largest_loss("no_class_worse", "recall", changes, found, limit)
    if not without:
        return clause
    text = f"{clause.text} Without images to compare on: {', '.join(without)}."
    return clause.model_copy(update={"passed": False, "text": text})


def _no_site_worse(found: Regression, limit: float) -> Clause:
    judged = {
        name: change for name, change in found.sites.items() if change.patients >= FEW_PATIENTS
    }
    if judged:
        return _largest_loss("no_site_worse", "accuracy", judged, found, limit)
    return Clause(
        name="no_site_worse",
        figure=None,
        interval=None,
        limit=limit,
        passed=True,
        text=f"No site has {FEW_PATIENTS} patients among {_on(found)}: too few to judge one.",
    )


def _largest_loss(
    name: str, metric: str, changes: Mapping[str, Difference], found: Regression, limit: float
) -> Clause:
    worst = min(changes, key=lambda key: changes[key].estimate)
    change = changes[worst]
    return Clause(
        name=name,
        figure=change.estimate,
        interval=change.interval,
        limit=limit,
        passed=change.estimate >= -limit,
        text=f"Lowest difference of the {metric} from that of the released model "
        f"{found.released}: {score(change.estimate, change.interval)}, {worst}, on {_on(found)}. "
        f"It must be at least {0 - limit:g}.",
    )


def _calibrated(report: Report, limit: float) -> Clause:
    error = report.calibration.after.ece
    return Clause(
        name="calibrated",
        figure=error,
        interval=None,
        limit=limit,
        passed=error <= limit,
        text=f"Expected calibration error as served: {score(error)}. It must be at most {limit:g}.",
    )


def _on(found: Regression) -> str:
    return f"{found.images} images of {found.patients} patients that neither has learnt from"
