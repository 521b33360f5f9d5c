import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cxr_assets.experiment import compose
from cxr_assets.radiographs import arrivals
from cxr_assets.radiographs.arrivals import Seen
from cxr_assets.sources import Data

NOW = datetime(2026, 1, 4, 3, tzinfo=UTC)


def acts(*found: tuple[int, str]) -> list[int]:
    """The minutes at which to retrain."""
    seen: Seen | None = None
    minutes = []
    for minute, content in found:
        seen, act = arrivals.follow(seen, content, NOW + timedelta(minutes=minute))
        minutes += [minute] if act else []
    return minutes


def test_nothing_starts_before_something_changes() -> None:
    assert acts((0, "a"), (60, "a"), (120, "a")) == []


def test_a_change_starts_one_retraining_once_it_has_settled() -> None:
    copying = [(2, "b"), (4, "c"), (6, "d")]
    assert acts((0, "a"), *copying, (14, "d"), (16, "d"), (18, "d"), (99, "d")) == [16]


def test_what_is_taken_back_starts_nothing_but_a_later_return_does() -> None:
    assert acts((0, "a"), (2, "b"), (4, "a"), (20, "a")) == []
    assert acts((0, "a"), (2, "b"), (12, "b"), (14, "a"), (24, "a")) == [12, 24]


def of(kind: str, place: Path, *more: str) -> Data:
    return compose("scratch", (f"data={kind}", f"data.{kind}={place}", *more)).data


def test_the_content_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    image = tmp_path / "train" / "NORMAL" / "IM-0001.jpeg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"1")
    os.utime(image, (1, 1))
    data = of("folder", tmp_path)
    found = [arrivals.content(data)]
    assert arrivals.content(data) == found[0]
    for name, written, time in (
        (image.name, b"2", 2),
        (image.name, b"22", 2),
        ("IM-0002.jpeg", b"1", 1),
    ):
        image.with_name(name).write_bytes(written)
        os.utime(image.with_name(name), (time, time))
        found.append(arrivals.content(data))
    image.unlink()
    found.append(arrivals.content(data))
    image.symlink_to(tmp_path / "nothing")
    assert arrivals.content(data) == found[-1]
    assert len(set(found)) == len(found)


def test_the_content_of_a_table_is_that_of_its_file_and_of_the_corrections(tmp_path: Path) -> None:
    table, corrections = tmp_path / "labels.csv", tmp_path / "corrections.csv"
    table.write_text("path,label,patient\n")
    corrections.write_text("")
    data = of("table", table, f"data.corrections={corrections}")
    first = arrivals.content(data)
    (tmp_path / "beside.txt").touch()
    assert arrivals.content(data) == first
    corrections.write_text("source,path,label\n")
    second = arrivals.content(data)
    table.write_text("path,label,patient\na,b,c\n")
    assert len({first, second, arrivals.content(data)}) == 3


def test_a_folder_that_is_not_mounted_has_not_changed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        arrivals.content(of("folder", tmp_path / "gone"))


def test_other_sources_are_not_watched() -> None:
    assert arrivals.content(compose("demo").data) is None
