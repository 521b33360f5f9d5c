import sys
from pathlib import Path

import pytest

from cxr_assets.provenance import code_version, fingerprint


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
        return code_version("subject")

    return write


def test_code_version_sees_code_and_not_comments(package):
    base = package("def f(x):\n    return x + 1\n")
    assert package('"""Doc."""\n# why\ndef f(x):\n    """Add."""\n\n    return x + 1  # one\n') == (
        package('"""Other."""\ndef f(x):\n    """Else."""\n    return x + 1\n')
    )
    assert package("def f(x):\n    return x + 2\n") != base


def test_code_version_covers_the_training_code():
    assert code_version("cxr_assets.learning") != code_version("cxr_assets.evaluation")
    with pytest.raises(ModuleNotFoundError):
        code_version("cxr_nothing")


def test_fingerprint_is_canonical():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
