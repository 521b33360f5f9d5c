"""A clock that was ahead, as after an empty battery, and is set back."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import CXR
from releases import release

from cxr_assets import decisions
from cxr_assets.layout import Layout
from cxr_assets.release.promotion import decide, promote
from cxr_serving.model import store


def promote_a_year_ahead(layout: Layout, version: str) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed: apt install faketime")
    environment = {**os.environ, "CXR_DATA_ROOT": str(layout.root)}
    environment.pop("CXR_HF_REPO", None)
    subprocess.run(
        ["faketime", "-f", "+400d", CXR, "release", "promote", version, "--because", "read"],
        env=environment,
        check=True,
    )


def test_what_was_decided_after_the_clock_was_set_back_stands(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    ahead, newer, held = release(layout, 1), release(layout, 2), release(layout, 3, passed=False)
    promote_a_year_ahead(layout, ahead.name)
    promote(layout, newer.name, "two readers agree")
    decide(layout, held)
    assert store.read_pointer(layout.releases) == newer.name
    history = decisions.history(layout)
    assert [one.version for one in history] == [ahead.name, newer.name, held.name]
