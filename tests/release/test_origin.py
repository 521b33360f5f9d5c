import pytest

from cxr_assets.experiment import compose
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.release import origin

TABLE = compose("full", ["data=table", "data.table=labels.csv"])
BOTH = compose(
    "full",
    [
        "data=sources",
        "data.sources=[{name: public, source: kaggle, dataset: owner/name},"
        "{name: north, source: table, table: a.csv}, {name: south, source: table, table: b.csv}]",
    ],
)


def test_several_sources_are_all_described_each_kind_once() -> None:
    kinds = origin.kinds(BOTH)
    assert kinds == ("kaggle", "table")
    text = origin.data(kinds)
    assert text.count("Mendeley") == 1
    assert text.count("must have the right to publish") == 1
    assert "Guangzhou" in origin.population(kinds)
    assert "must state it" in origin.population(kinds)
    assert origin.names(kinds)[1] == "chest-xray-pneumonia, table"


@pytest.mark.parametrize(
    ("experiment", "classes", "said", "unsaid"),
    [
        (compose("full"), KAGGLE_CLASSES, ["Kermany", "look alike", "source:"], ["sources"]),
        (compose("full"), ("normal", "pneumonia"), ["Kermany", "readings"], ["look alike"]),
        (TABLE, ("normal", "nodule"), ["not known", "shortcuts"], ["Kermany", "look alike"]),
        (BOTH, KAGGLE_CLASSES, ["the same sources:", "look alike"], ["the same source:"]),
        (compose("demo"), KAGGLE_CLASSES, ["demonstration"], ["look alike"]),
    ],
)
def test_limits_are_those_of_these_images_and_classes(experiment, classes, said, unsaid) -> None:
    text = origin.limits(experiment, classes)
    assert [words for words in said if words not in text] == []
    assert [words for words in unsaid if words in text] == []


def test_a_source_for_evaluation_alone_is_no_training_data_in_the_limits() -> None:
    outside = compose(
        "full",
        [
            "data=sources",
            "data.sources=[{name: public, source: kaggle, dataset: owner/name},"
            "{name: north, source: table, table: a.csv, use: test}]",
        ],
    )
    text = origin.limits(outside, KAGGLE_CLASSES)
    assert "from the same source:" in text
    assert "but for the external validation on north." in text
