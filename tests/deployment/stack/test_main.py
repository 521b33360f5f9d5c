import os
import shutil

import pytest

from deploy.stack import __main__ as stack


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(stack.StackError, match="sudo make stack"):
        stack._isolated()


def test_it_says_which_programs_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ip" else name)
    with pytest.raises(stack.StackError, match="ip cannot be found: apt install"):
        stack._isolated()
