"""A report without the names of sites, for what leaves this machine."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from cxr_assets.evaluation.rule import judge
from cxr_assets.groups import Rule
from cxr_serving.model.rejection import FalseRejection, JudgedPart
from cxr_serving.model.report import Report, Subgroup

Value = TypeVar("Value")
Part = TypeVar("Part", Subgroup, JudgedPart)
Gate = TypeVar("Gate", bound=FalseRejection)


def anonymous(report: Report, rule: Rule) -> Report:
    """The same report with ``site 1``, the largest, ``site 2``, ... in place of the names.

    Args:
        report: on a processed dataset.
        rule: that its clauses were judged by; one of them names a site.
    """
    data = report.dataset
    if data is None or not (data.sites or (data.changes and data.changes.sites)):
        return report
    images = {name: sum(counts.values()) for name, counts in data.sites.items()}
    former = sorted(set(data.changes.sites if data.changes else ()) - images.keys())
    ordered = [*sorted(images, key=lambda name: (-images[name], name)), *former]
    numbers = {name: f"site {number}" for number, name in enumerate(ordered, 1)}

    def renamed(by_site: Mapping[str, Value]) -> dict[str, Value]:
        return {numbers.get(name, name): value for name, value in by_site.items()}

    def of_subgroups(rows: Sequence[Part]) -> list[Part]:
        return [
            row.model_copy(update={"subgroup": numbers.get(row.subgroup, row.subgroup)})
            if row.group == "site"
            else row
            for row in rows
        ]

    def of_gate(gate: Gate | None) -> Gate | None:
        return gate and gate.model_copy(update={"subgroups": of_subgroups(gate.subgroups)})

    changes = data.changes and data.changes.model_copy(
        update={"sites": renamed(data.changes.sites)}
    )
    found = report.regression
    hidden = report.model_copy(
        update={
            "dataset": data.model_copy(update={"sites": renamed(data.sites), "changes": changes}),
            "regression": found and found.model_copy(update={"sites": renamed(found.sites)}),
            "subgroups": of_subgroups(report.subgroups),
            "gate": of_gate(report.gate),
            "external": {
                source: one.model_copy(
                    update={"subgroups": of_subgroups(one.subgroups), "gate": of_gate(one.gate)}
                )
                for source, one in report.external.items()
            },
        }
    )
    return hidden.model_copy(update={"clauses": judge(hidden, rule)})
