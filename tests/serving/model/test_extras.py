import sys

import pytest

from cxr_serving.model import extras


def test_nothing_is_missing_where_torch_is_installed() -> None:
    assert extras.torch_missing() is None


def test_only_what_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert extras.torch_missing() == (
        "needs transformers: install the extra `cuda` with pip install 'cxr-retraining[cuda]'"
    )
