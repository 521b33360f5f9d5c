import pytest
import reports

from cxr_assets.release import sections
from cxr_serving.model.dataset import Change
from cxr_serving.model.report import Subgroup
from cxr_serving.model.robustness import Loss, Robustness, Scanned


def site(name: str, patients: int, macro_f1: float | None) -> Subgroup:
    return Subgroup(
        group="site",
        subgroup=name,
        images=40,
        patients=patients,
        accuracy=0.8,
        interval=(0.7, 0.9),
        macro_f1=macro_f1,
        macro_f1_interval=None if macro_f1 is None else (0.6, 0.8),
    )


def cells(table: str, first: str) -> list[str]:
    """The cells of the row that starts with a word."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_external_source_is_a_row_with_intervals_and_with_the_baseline() -> None:
    outside = reports.external(absent_classes=("viral_pneumonia",), auroc_macro_ovr=None)
    table = sections.external(reports.report(external={"outside": outside}))
    assert cells(table, "outside") == [
        *("outside", "40", "9 \\*", "viral_pneumonia", "0.750 (0.600 to 0.800)"),
        *("0.800 (0.700 to 0.850)", "not defined", "0.500 (0.600 to 0.800)"),
    ]
    assert "Fewer than 30 patients" in table
    assert "Fewer than" not in sections.external(
        reports.report(external={"outside": reports.external(patients=30)})
    )


def test_without_an_external_source_or_a_subgroup_there_is_no_table() -> None:
    assert sections.external(reports.report()) is None
    assert sections.subgroups([]) is None


def test_a_subgroup_of_few_patients_is_marked() -> None:
    table = sections.subgroups([site("large", 30, 0.7), site("small", 29, None)])
    rows = [line for line in table.splitlines() if line.startswith("| site")]
    assert "| 30 " in rows[0]
    assert "0.700 (0.600 to 0.800)" in rows[0]
    assert "| 29 \\* " in rows[1]
    assert "one class only" in rows[1]
    assert table.endswith("are then too narrow.")
    assert "\\*" not in sections.subgroups([site("large", 30, 0.7)])


@pytest.mark.parametrize("place", ["all", "normal", "site north wing"])
def test_what_changed_is_a_sentence_and_a_table(place: str) -> None:
    text = sections.changed(reports.report(dataset=reports.dataset()))
    assert "since the one before: 50 added (50 normal), 2 removed (" in text
    assert cells(text, place)[1] == "50"


def test_an_unchanged_dataset_and_the_first_one_have_no_table() -> None:
    same = reports.dataset().changes.model_copy(update={"total": Change()})
    for changes, sentence in ((same, "The dataset of "), (None, "This is the first dataset")):
        text = sections.changed(reports.report(dataset=reports.dataset(changes=changes)))
        assert text.startswith(sentence)
        assert "|" not in text


def test_a_simulated_scanner_is_a_row_with_the_class_that_loses_most() -> None:
    scanned = Scanned(
        description="gamma 1.6",
        macro_f1=Loss(value=0.7, drop=0.05, interval=(0.02, 0.08)),
        recalls={
            "normal": Loss(value=0.6, drop=0.2, interval=(0.1, 0.3)),
            "viral_pneumonia": Loss(value=0.8, drop=0, interval=None),
        },
        rejected=None,
    )
    found = Robustness(
        images=300,
        patients=200,
        macro_f1=0.75,
        recalls={"normal": 0.8, "viral_pneumonia": 0.8},
        rejected=None,
        scanners={"low_contrast": scanned},
    )
    table = sections.robustness(reports.report(robustness=found))
    assert table is not None
    assert cells(table, "low contrast:") == [
        *("low contrast: gamma 1.6", "0.700", "0.050 (0.020 to 0.080)"),
        *("normal", "0.200 (0.100 to 0.300)"),
    ]
    assert sections.robustness(reports.report()) is None
