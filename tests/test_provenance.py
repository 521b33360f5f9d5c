import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest

from cxr_assets import provenance
from cxr_assets.learning import embeddings
from cxr_assets.learning import plan as plans
from cxr_assets.provenance import closure, code_version, fingerprint
from cxr_assets.radiographs import decoding, synthesis


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a package of one module and returns its code version."""
    monkeypatch.syspath_prepend(str(tmp_path))
    number = 0

    def write(source: str) -> str:
        nonlocal number
        number += 1
        folder = tmp_path / "subject"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("")
        (folder / "module.py").write_text(source)
        sys.modules.pop("subject", None)
        return code_version("subject.module")

    return write


def test_code_version_sees_code_and_not_comments(package):
    base = package("def f(x):\n    return x + 1\n")
    assert package('"""Doc."""\n# why\ndef f(x):\n    """Add."""\n\n    return x + 1  # one\n') == (
        package('"""Other."""\ndef f(x):\n    """Else."""\n    return x + 1\n')
    )
    assert package("def f(x):\n    return x + 2\n") != base


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match="cxr_nothing"):
        code_version("cxr_nothing")


@pytest.mark.parametrize(
    ("source", "follows"),
    [
        ("import subject.other", True),
        ("import subject.other as o", True),
        ("from subject import other", True),
        ("from subject.other import value", True),
        ("from . import other", True),
        ("from .other import value", True),
        ("def f():\n    from subject.other import value\n", True),
        ("import subject.between", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import subject.other", False),
        ("# import subject.other", False),
    ],
)
def test_code_version_follows_every_import_that_runs(source, follows, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "subject"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "between.py").write_text("from subject import other\n")
    (folder / "other.py").write_text("value = 1\n")
    (folder / "module.py").write_text(source)
    sys.modules.pop("subject", None)
    before = code_version("subject.module")
    (folder / "other.py").write_text("value = 2\n")
    assert (code_version("subject.module") != before) is follows


def test_code_version_follows_the_versions_of_the_libraries_imported(monkeypatch):
    before = code_version("cxr_serving.model.preprocessing")
    _, libraries = closure("cxr_serving.model.preprocessing")
    assert libraries["numpy"] == np.__version__
    assert libraries["pillow"] == PIL.__version__
    assert "torch" in closure(*plans.SHAPED_BY)[1]

    def upgraded(name: str) -> str:
        return {**libraries, "pillow": "99.0"}[name]

    monkeypatch.setattr(provenance, "version", upgraded)
    assert code_version("cxr_serving.model.preprocessing") != before
    monkeypatch.setattr(provenance, "version", lambda name: f"{libraries[name]}+cu128")
    assert code_version("cxr_serving.model.preprocessing") == before, "what device does not matter"


CHANGES = """
import sys
from pathlib import Path
from cxr_assets import provenance
entries, *files = sys.argv[1:]
root = Path(provenance.__file__).parents[1]
before = provenance.code_version(*entries.split())
for file in files:
    source = (root / file).read_text()
    (root / file).write_text(source + "\\nCHANGED = 1\\n")
    print(file, provenance.code_version(*entries.split()) != before)
    (root / file).write_text(source)
"""


@pytest.mark.parametrize(
    ("entry", "shaping", "other"),
    [
        (
            " ".join(plans.SHAPED_BY),
            [
                *("cxr_assets/learning/fit.py", "cxr_assets/learning/history.py"),
                *("cxr_assets/learning/bundling.py", "cxr_assets/learning/linear_probe.py"),
                *("cxr_assets/learning/module.py", "cxr_assets/radiographs/datamodule.py"),
                *("cxr_serving/model/network.py", "cxr_serving/model/preprocessing.py"),
                *("cxr_assets/radiographs/dataset.py", "cxr_assets/radiographs/augmentation.py"),
                *("cxr_assets/learning/networks.py", "cxr_assets/learning/onnx.py"),
                *("cxr_assets/learning/probe.py", "cxr_assets/learning/embeddings.py"),
            ],
            [
                *("cxr_serving/http/app.py", "cxr_serving/http/watcher.py", "cxr_assets/sweep.py"),
                *("cxr_assets/evaluation/report.py", "cxr_assets/evaluation/plots.py"),
                *("cxr_assets/release/card.py", "cxr_assets/defs/checks.py"),
                *("cxr_assets/defs/assets/training.py", "cxr_assets/evaluation/command.py"),
            ],
        ),
        (
            decoding.__name__,
            [
                *("cxr_serving/model/preprocessing.py", "cxr_serving/images/reader.py"),
                *("cxr_serving/images/dicom/display.py", "cxr_assets/radiographs/decoding.py"),
            ],
            [
                # Their result is part of the version itself.
                *("cxr_assets/radiographs/split.py", "cxr_assets/radiographs/selection.py"),
                "cxr_serving/http/app.py",
                "cxr_assets/learning/fit.py",
                "cxr_assets/evaluation/report.py",
            ],
        ),
        (
            embeddings.__name__,
            ["cxr_serving/model/preprocessing.py", "cxr_assets/radiographs/dataset.py"],
            [
                "cxr_serving/http/app.py",
                "cxr_assets/learning/fit.py",
                "cxr_assets/learning/convnext.py",
            ],
        ),
        (
            synthesis.__name__,
            ["cxr_assets/radiographs/synthesis.py", "cxr_assets/radiographs/naming.py"],
            ["cxr_assets/radiographs/raw.py", "cxr_serving/model/preprocessing.py"],
        ),
    ],
    ids=["training", "decoded images", "embeddings", "synthetic images"],
)
def test_what_is_reused_changes_with_the_code_that_shapes_it_alone(entry, shaping, other, tmp_path):
    """Without a repository, as in an installed wheel."""
    source = Path(provenance.__file__).parents[1]
    for package in ("cxr_assets", "cxr_serving"):
        shutil.copytree(source / package, tmp_path / package, ignore=only_python)
    said = subprocess.run(
        [sys.executable, "-c", CHANGES, entry, *shaping, *other],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert said == [f"{file} True" for file in shaping] + [f"{file} False" for file in other]


def only_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if "." in name and not name.endswith(".py")]


def test_fingerprint_is_canonical():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
