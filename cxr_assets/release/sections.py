"""Parts of the card: other sources, subgroups, what the gate rejects, how the data changed."""

import pandas as pd

from cxr_assets.evaluation.wording import FEW_NOTE, rejection, score, words
from cxr_assets.radiographs import changes
from cxr_serving.model.bundle import GateRecord
from cxr_serving.model.gate import DESCRIPTIONS
from cxr_serving.model.rejection import Judged
from cxr_serving.model.report import FEW_PATIENTS, Report, Subgroup


def external(report: Report) -> str | None:
    """A table with one row per source that is only for evaluation; None where there is none."""
    if not report.external:
        return None
    rows = []
    for source, part in report.external.items():
        intervals, baseline = part.intervals, part.baseline
        rows.append(
            {
                "source": source,
                "images": part.images,
                "patients": patients(part.patients),
                "not there": ", ".join(part.absent_classes),
                "macro F1": score(part.macro_f1, intervals.macro_f1),
                "accuracy": score(part.accuracy, intervals.accuracy),
                "macro AUROC": score(part.auroc_macro_ovr, intervals.auroc_macro_ovr),
                "macro F1 of the baseline": score(
                    baseline.macro_f1 if baseline else None,
                    baseline.intervals.macro_f1 if baseline else None,
                ),
            }
        )
    few = any(part.patients < FEW_PATIENTS for part in report.external.values())
    return _markdown(rows) + (f"\n\n\\* {FEW_NOTE}" if few else "")


def subgroups(rows: list[Subgroup]) -> str | None:
    """A table with one row per subgroup; None where there is none."""
    if not rows:
        return None
    table = [
        {
            "stratified by": row.group,
            "subgroup": row.subgroup,
            "images": row.images,
            "patients": patients(row.patients),
            "accuracy": score(row.accuracy, row.interval),
            "macro F1": "one class only"
            if row.macro_f1 is None
            else score(row.macro_f1, row.macro_f1_interval),
        }
        for row in rows
    ]
    return _markdown(table) + (f"\n\n\\* {FEW_NOTE}" if any(row.few for row in rows) else "")


def patients(number: int) -> str:
    """Marked where they are few."""
    return f"{number} \\*" if number < FEW_PATIENTS else str(number)


def changed(report: Report) -> str:
    """What changed in the data since the version before: a sentence, and a table where any did."""
    text = changes.sentence(report.changes)
    if report.changes is None or not any(report.changes.total.model_dump().values()):
        return text
    return f"{text}\n\n{changes.table(report.changes).to_markdown()}"


def gate_checks(record: GateRecord) -> str:
    """A table with one row per reason for which the gate rejects an image."""
    return _markdown(
        [
            {
                "reason": f"`{reason}`",
                "meaning": says,
                "threshold": "none" if check.threshold is None else f"{check.threshold:.4g}",
                "validation images rejected": rejection(check.validation),
                "altered ones found": rejection(check.found) if check.found else "",
            }
            for reason, says in DESCRIPTIONS.items()
            if (check := record.checks.get(reason))
        ]
    )


def gate(report: Report) -> str | None:
    """A table of what the gate rejects on the evaluated images, and on altered ones, if any."""
    found = report.gate
    if found is None:
        return None
    rows = {
        "test images": found.total,
        **{f"test images, {words(name)}": row for name, row in found.classes.items()},
        **{
            f"external source {source}": part.gate.total
            for source, part in report.external.items()
            if part.gate
        },
        **{f"altered or made: {words(kind)}": row for kind, row in found.altered.items()},
    }
    return _markdown([{"images": name, **_judged(row)} for name, row in rows.items()])


def robustness(report: Report) -> str | None:
    """A table with one row per simulated scanner; None where none was tried."""
    found = report.robustness
    if found is None:
        return None
    return _markdown(
        [
            {
                "scanner": f"{words(name)}: {row.description}",
                "macro F1": score(row.macro_f1.value),
                "drop": score(row.macro_f1.drop, row.macro_f1.interval),
                "recall that drops most": words(row.most_affected),
                "by": score(recall.drop, recall.interval),
            }
            for name, row in found.scanners.items()
            for recall in [row.recalls[row.most_affected]]
        ]
    )


def _judged(row: Judged) -> dict[str, object]:
    return {"number": row.images, "rejected": row.rejected, "share": rejection(row)}


def _markdown(rows: list[dict[str, object]]) -> str:
    text: str = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return text
