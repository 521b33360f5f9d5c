import errno
import os
import shutil
from pathlib import Path

import pytest

from cxr_assets.learning import energy
from cxr_assets.learning.energy import Meter


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, one with a subzone for its cores."""
    for zone, name in (("0", "package-0"), ("0:0", "core"), ("1", "package-1")):
        folder = tmp_path / f"intel-rapl:{zone}"
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("1000000\n")
        (folder / "energy_uj").write_text("900000\n")
    monkeypatch.setattr(energy, "COUNTERS", tmp_path)
    return tmp_path


def count(counters: Path, zone: str, microjoules: int) -> None:
    (counters / f"intel-rapl:{zone}" / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_are_summed_and_counters_may_wrap_around(counters: Path) -> None:
    meter = Meter()
    assert meter.joules() == 0
    count(counters, "0", 950_000)
    count(counters, "0:0", 940_000)
    count(counters, "1", 100_000)
    assert meter.joules() == pytest.approx(0.05 + 0.2)
    count(counters, "0", 50_000)
    assert meter.joules() == pytest.approx(0.05 + 0.2 + 0.1)


def test_without_counters_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "COUNTERS", tmp_path / "absent")
    assert Meter().joules() is None


def test_counters_that_only_root_may_read_are_ignored(
    counters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def forbidden(path: Path, encoding: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, encoding)

    meter = Meter()
    monkeypatch.setattr(Path, "read_text", forbidden)
    assert meter.joules() is None
    assert Meter().joules() is None


def test_an_unreadable_counter_is_logged_once_and_fails_nothing(
    counters: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container on bare metal, where the folder of the counters is masked."""
    energy._warn.cache_clear()
    meter = Meter()
    zone = counters / "intel-rapl:1"
    shutil.rmtree(zone)
    zone.symlink_to(counters / "nowhere")
    assert meter.joules() is None
    assert Meter().joules() is None
    assert [record.message for record in caplog.records] == [
        f"the energy of trainings is not measured: [Errno 2] No such file or directory: "
        f"'{zone / 'name'}'"
    ]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("energy_uj", b"\n"),
        ("energy_uj", b"many\n"),
        ("energy_uj", b"-1\n"),
        ("energy_uj", b"2000000\n"),
        ("max_energy_range_uj", b"0\n"),
        ("name", b"\xff\xfe"),
    ],
)
def test_an_implausible_counter_is_ignored(file: str, content: bytes, counters: Path) -> None:
    meter = Meter()
    (counters / "intel-rapl:0" / file).write_bytes(content)
    assert meter.joules() is None
    assert Meter().joules() is None


@pytest.mark.parametrize("code", [errno.EIO, errno.ENODEV, errno.ENODATA, errno.ELOOP])
def test_no_error_of_the_system_fails_a_training(
    code: int, counters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, encoding: str) -> str:
        raise OSError(code, os.strerror(code), str(path))

    meter = Meter()
    monkeypatch.setattr(Path, "read_text", broken)
    assert meter.joules() is None
    assert Meter().joules() is None
