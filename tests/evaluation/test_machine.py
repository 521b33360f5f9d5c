from importlib.metadata import PackageNotFoundError, version

import torch

from cxr_assets.evaluation import machine
from cxr_serving.model import processors


def test_the_environment_is_on_record() -> None:
    known = machine.environment()
    assert known.libraries["torch"] == version("torch")
    assert known.processors == processors.count()


def test_what_is_not_known_is_none_and_does_not_stop_the_report(monkeypatch) -> None:
    def absent(library: str) -> str:
        raise PackageNotFoundError(library)

    def broken(**options: bool) -> None:
        raise RuntimeError("the NVIDIA driver on your system is too old")

    monkeypatch.setattr(machine, "version", absent)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", broken)
    known = machine.environment()
    assert set(known.libraries.values()) == {None}
    assert known.accelerator is None
