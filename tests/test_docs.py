"""What the documentation says of numbers and settings is what they are."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_assets.experiment import compose
from cxr_assets.overrides import split
from cxr_assets.radiographs import raw
from cxr_assets.settings import Settings as PipelineSettings
from cxr_serving.http.settings import Settings as ServiceSettings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/settings.md").read_text()
FIELDS = {**PipelineSettings.model_fields, **ServiceSettings.model_fields}
PROGRAMS = ["cxr*/**/*.py", "deploy/*.*", "*.yml", "*.yaml", "Makefile", "Dockerfile", "*.md"]


def test_every_result_in_the_readme_is_in_the_results() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## Results\n")[2].partition("\n## ")[0]
    numbers = re.findall(r"(?<![\w.,])\d*[.,]?\d+", section)
    assert len(numbers) > 20
    results = (ROOT / "docs/RESULTS.md").read_text()
    missing = [n for n in numbers if not re.search(rf"(?<![\w.,]){re.escape(n)}(?!\d)", results)]
    assert not missing


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    variable = f"`CXR_{name.upper()}`"
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in PAGE.splitlines()]
    row = next((row for row in rows if variable in row[0]), None)
    assert row, f"{variable} is missing in docs/settings.md"
    default = FIELDS[name].default
    if FIELDS[name].default_factory is None and default not in (None, ""):
        variables, defaults = (re.findall(r"`([^`]+)`", cell) for cell in row[:2])
        documented = defaults[variables.index(variable.strip("`"))]
        assert type(default)(documented) == default


def test_every_variable_that_is_named_anywhere_is_on_the_page() -> None:
    documented = set(re.findall(r"CXR_[A-Z_]+", PAGE))
    assert documented == {f"CXR_{name.upper()}" for name in FIELDS}
    files = [file for pattern in PROGRAMS for file in ROOT.glob(pattern)]
    named = {name for file in files for name in re.findall(r"CXR_[A-Z_]*[A-Z]", file.read_text())}
    assert len(named) > 20
    assert named - documented == set()


def test_the_first_table_and_its_settings_are_what_the_program_reads(tmp_path: Path) -> None:
    page = (ROOT / "docs/data.md").read_text()
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", page, re.DOTALL)
    table, several = (
        compose("scratch", split(shell(block))).data
        for block in blocks
        if "export CXR_OVERRIDES" in block
    )
    assert [source.use for source in several.listed] == ["all", "train", "test"]

    [rows] = [block for block in blocks if block.startswith("path;label;")]
    [source] = table.listed
    assert str(source.table) == "/images/labels.csv"
    (tmp_path / "labels.csv").write_text(rows)
    (tmp_path / "export").mkdir()
    for name in re.findall(r"^export/[^;]+", rows, re.MULTILINE):
        number = int(re.findall(r"\d+", name)[0])
        noise = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name, "PNG")
    here = source.model_copy(update={"table": tmp_path / "labels.csv"})
    found = raw.check(
        here, ("bacterial_pneumonia", "normal", "viral_pneumonia"), {}, print
    ).inventory
    assert len(found) == len(rows.splitlines()) - 1
    columns = ["label", "patient", "site", "acquired", "view"]
    assert found[columns].notna().all(axis=None)
    assert found["problem"].isna().all(), found["problem"].tolist()


def shell(block: str) -> str:
    """What a shell makes of the overrides in a block."""
    done = subprocess.run(
        ["bash", "-c", f'{block}\nprintf %s "$CXR_OVERRIDES"'],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_line_of_the_threat_model_names_a_test_that_exists() -> None:
    page = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| (?!from|the process \||---)(.*) \|$", page, re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        assert re.search(r"`\S+\.py::test_\w+`$", row), row


@pytest.mark.parametrize("page", ["security", "reliability"])
def test_the_tests_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    named = re.findall(r"`([^`\s]+\.py)::(test_\w+)`", text)
    assert len(named) > 20
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), (file, name)


def test_dead_links_are_found_on_pages_and_in_the_readme(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("conf.py", "index.md"):
        (docs / name).write_bytes((ROOT / "docs" / name).read_bytes())
    (tmp_path / "LICENSE").touch()
    (docs / "data.md").write_text("# Data\n\n## Splits\n\n[dead](gone.md)\n")
    (tmp_path / "README.md").write_text(
        "# A\n\n[alive](docs/data.md#splits) [alive](LICENSE) [dead](docs/data.md#nowhere)"
        " [dead](MISSING) [dead](#no-heading) ![dead](docs/absent.png)\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-t",
            "links",
            "-b",
            "dummy",
            docs,
            tmp_path / "out",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    warned = "\n".join(line for line in done.stderr.splitlines() if "toctree" not in line)
    for dead in ("gone.md", "nowhere", "MISSING", "no-heading", "absent.png"):
        assert dead in warned
    assert len(warned.splitlines()) == 5
