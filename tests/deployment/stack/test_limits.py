from pathlib import Path

import pytest

from deploy.stack import limits


@pytest.mark.parametrize("version", [1, 2])
def test_limits_are_those_of_the_kernels_control_groups(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_ROOT", tmp_path)
    if version == 2:
        (tmp_path / "cgroup.controllers").touch()
        (tmp_path / "cgroup.subtree_control").touch()
    else:
        for controller in ("memory", "pids"):
            (tmp_path / controller).mkdir()
    groups = limits.Limits("web", 2**30, 1000)
    groups.make()
    groups.make()
    written = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("web/*")
    }
    if version == 2:
        assert written == {
            "cxr-stack/web/memory.max": str(2**30),
            "cxr-stack/web/pids.max": "1000",
        }
        assert groups.enter() == [f"echo 0 > {tmp_path}/cxr-stack/web/cgroup.procs"]
    else:
        assert written == {
            "memory/cxr-stack/web/memory.limit_in_bytes": str(2**30),
            "pids/cxr-stack/web/pids.max": "1000",
        }
        assert len(groups.enter()) == 2


def test_without_a_limit_there_is_no_group() -> None:
    assert limits.Limits("web", None, None).enter() == []
