from pathlib import Path

import pytest

from cxr_serving.model.places import expanded


def test_a_tilde_at_the_start_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/a") == expanded(Path("~/a")) == Path("/home/me/a")
    for other in ("a/~/b", "~nobody-of-this-name/a", "a~"):
        assert expanded(other) == Path(other)
