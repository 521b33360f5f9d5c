"""What the documentation says of numbers and settings is what they are."""

import re
from pathlib import Path

import pytest

from cxr_serving.http.settings import Settings

ROOT = Path(__file__).parents[1]
FIELDS = Settings.model_fields


def test_every_result_in_the_readme_is_in_the_results() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## Results\n")[2].partition("\n## ")[0]
    numbers = re.findall(r"(?<![\w.,])\d*[.,]?\d+", section)
    assert len(numbers) > 20
    results = (ROOT / "docs/RESULTS.md").read_text()
    missing = [n for n in numbers if not re.search(rf"(?<![\w.,]){re.escape(n)}(?!\d)", results)]
    assert not missing


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_of_the_service_is_documented_with_its_default(name: str) -> None:
    variable = f"`CXR_{name.upper()}`"
    page = (ROOT / "docs/settings.md").read_text()
    rows = [[cell.strip() for cell in line.split(" | ")] for line in page.splitlines()]
    row = next((row for row in rows if variable in row[0]), None)
    assert row, f"{variable} is missing in docs/settings.md"
    default = FIELDS[name].default
    if FIELDS[name].default_factory is None and default is not None:
        variables, defaults = (re.findall(r"`([^`]+)`", cell) for cell in row[:2])
        documented = defaults[variables.index(variable.strip("`"))]
        assert type(default)(documented) == default
