import re
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, meta

from cxr_assets.release import checklists

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
