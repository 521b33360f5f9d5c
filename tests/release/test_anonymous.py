from datetime import date

import reports
import tiny

from cxr_assets.evaluation.rule import judge
from cxr_assets.release.anonymous import anonymous
from cxr_serving.model.bundle import Rejections
from cxr_serving.model.comparison import Regression, SiteDifference
from cxr_serving.model.dataset import Change, Changes, Dataset
from cxr_serving.model.rejection import FalseRejection, GateReport, Judged, JudgedPart
from cxr_serving.model.report import External, Report, Subgroup


def report() -> Report:
    same = reports.difference(0, -0.02, 0.02)
    worse = SiteDifference(estimate=-0.1, interval=None, p=1, images=90, patients=90)
    changes = Changes(
        made_on=date(2026, 1, 4),
        since="e",
        total=Change(),
        classes={},
        sites={"Saint Mary": Change(), "Closed": Change()},
    )
    dataset = Dataset(
        data_version="d", raw_data_version="r", classes=("a", "b"), synthetic=False,
        image_size=32, decoding="d", val_fraction=0.1, test_fraction=0.1, seed=0, counts={},
        sources={"ours": {"test": 600}},
        sites={"Charity": {"test": 60}, "Saint Mary": {"test": 540}},
        skipped={}, changes=changes,
    )  # fmt: skip
    rows = [
        Subgroup(
            group=group, subgroup=name, images=60, patients=60, accuracy=1, interval=None,
            macro_f1=None, macro_f1_interval=None,
        )
        for group, name in (("site", "Charity"), ("source", "ours"))
    ]  # fmt: skip
    regression = Regression(
        released="20260101T000000Z-00000000", same_data=True, images=600, patients=600, left_out=0,
        macro_f1=same, accuracy=same, auroc_macro_ovr=None, classes={"a": same},
        sites={"Charity": worse},
    )  # fmt: skip
    row = Judged(**dict(Rejections.of(1, 60)), reasons={"inverted": 1})
    gate = GateReport(
        total=row, classes={}, altered={}, confidence=0.7, selective={},
        subgroups=[JudgedPart(group="site", subgroup="Charity", **dict(row))],
    )  # fmt: skip
    made = reports.report(dataset=dataset, subgroups=rows, regression=regression, gate=gate)
    outside = External(
        **{name: getattr(made, name) for name in External.model_fields if name != "gate"},
        gate=FalseRejection(total=row, classes={}, subgroups=gate.subgroups),
    )
    made = made.model_copy(update={"external": {"outside": outside}})
    return made.model_copy(update={"clauses": judge(made, tiny.RULE)})


def test_no_name_of_a_site_is_left_and_each_keeps_its_number() -> None:
    original = report()
    assert any("Charity" in clause.text for clause in original.clauses), "else it shows nothing"
    hidden = anonymous(original, tiny.RULE)
    text = hidden.content().decode()
    for name in ("Charity", "Saint Mary", "Closed"):
        assert name not in text
    assert [row.subgroup for row in hidden.subgroups] == ["site 2", "ours"]
    assert hidden.external["outside"].subgroups == hidden.subgroups
    assert hidden.gate is not None
    assert [row.subgroup for row in hidden.gate.subgroups] == ["site 2"]
    assert hidden.gate.total == original.gate.total
    assert hidden.regression is not None
    assert list(hidden.regression.sites) == ["site 2"]
    assert any("site 2" in clause.text for clause in hidden.clauses)
    assert hidden.dataset is not None
    assert set(hidden.dataset.sites) == {"site 1", "site 2"}


def test_a_report_without_sites_stays_as_it_is() -> None:
    assert anonymous(reports.report(), tiny.RULE) == reports.report()
