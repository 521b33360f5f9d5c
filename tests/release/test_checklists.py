import re
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, meta

from cxr_assets.release import checklists

# A word of the topic of each item, in the order of the editions that the card names.
CLAIM = (
    *("category", "summary", "background", "aims", "prospective", "goal", "sources", "inclusion"),
    *("preprocessing", "subsets", "de-identification", "missing", "acquisition", "standard"),
    *("reason", "source", "test set", "variability", "partitions", "disjoint", "sample size"),
    *("model", "software", "initial", "training", "final model", "ensembles", "metrics"),
    *("uncertainty", "robustness", "explainability", "internal", "external", "registration"),
    *("included", "characteristics", "performance", "diagnostic", "failure", "limitations"),
    *("practice", "protocol", "availability", "funding"),
)
TRIPOD = {
    "1": ("title",),
    "2": ("abstract",),
    "3": ("healthcare", "target", "inequalities"),
    "4": ("objectives",),
    "5": ("sources", "dates"),
    "6": ("setting", "eligibility", "treatments"),
    "7": ("preparation",),
    "8": ("outcome", "assessors", "blinding"),
    "9": ("choice", "definition", "assessors"),
    "10": ("sample size",),
    "11": ("missing",),
    "12": ("use", "predictors", "built", "heterogeneity", "performance", "updating", "computed"),
    "13": ("imbalance",),
    "14": ("fairness",),
    "15": ("output",),
    "16": ("training",),
    "17": ("ethical",),
    "18": ("funding", "conflicts", "protocol", "registration", "data", "code"),
    "19": ("public",),
    "20": ("flow", "characteristics", "development"),
    "21": ("participants",),
    "22": ("model",),
    "23": ("performance", "heterogeneity"),
    "24": ("updating",),
    "25": ("interpretation",),
    "26": ("limitations",),
    "27": ("input", "users", "next"),
}
KNOWN = {"title", "record", "report", "data", "experiment", "included", "excluded", "external"}


@pytest.mark.parametrize(("name", "last", "items"), [("claim", 44, 44), ("tripod", 27, 52)])
def test_every_item_is_there_once_and_in_order(name: str, last: int, items: int) -> None:
    path = Path(checklists.__file__).with_name(f"{name}.yaml")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    numbers = [re.fullmatch(r"(\d+)([a-g]?)", row["item"]) for row in found]
    order = [(int(match[1]), match[2]) for match in numbers if match]
    assert len(order) == len(found) == items
    assert order == sorted(set(order))
    assert {number for number, _ in order} == set(range(1, last + 1))
    environment = Environment()
    for row in found:
        assert set(row) <= {"item", "asks", "answer"}
        names = meta.find_undeclared_variables(environment.parse(row.get("answer", "")))
        assert names <= KNOWN


def test_the_topics_are_those_of_the_editions() -> None:
    tripod = [
        (number + (letter if len(words) > 1 else ""), word)
        for number, words in TRIPOD.items()
        for letter, word in zip("abcdefg", words, strict=False)
    ]
    claim = [(str(number), word) for number, word in enumerate(CLAIM, 1)]
    for name, topics in (("claim", claim), ("tripod", tripod)):
        path = Path(checklists.__file__).with_name(f"{name}.yaml")
        asked = {row["item"]: row["asks"] for row in yaml.safe_load(path.read_text("utf-8"))}
        assert list(asked) == [number for number, _ in topics]
        for number, word in topics:
            assert word in asked[number].lower(), (name, number)
