from pathlib import Path

import joblib
import pytest

from cxr_serving.model import processors


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processors, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)), raising=False)
    (tmp_path / "cpu").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("6400000 100000", 16),
    ],
)
def test_a_quota_counts_where_it_is_less_than_the_affinity(
    cgroup: Path, limit: str, expected: int
) -> None:
    (cgroup / "cpu.max").write_text(f"{limit}\n")
    assert processors.count() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("300000", 3)])
def test_a_quota_of_control_groups_version_1_counts_too(
    cgroup: Path, quota: str, expected: int
) -> None:
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert processors.count() == expected


def test_without_a_quota_the_affinity_counts(cgroup: Path) -> None:
    assert processors.count() == 16


def test_it_is_the_number_that_loky_gives_here() -> None:
    assert processors.count() == joblib.cpu_count()
