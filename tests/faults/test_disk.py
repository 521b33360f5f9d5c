"""A data root on a small file system of its own, which is full, and then read-only."""

import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.retraining import Place, Retraining

from cxr_serving.model import store

MIB = 2**20
LEAST, NEEDED = 0.1, 1.5
NAMED = re.compile(
    r"/data\S* cannot be written: (No space left on device|Read-only file system)[.;].* space"
)


def mount(options: str, path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    path.mkdir()
    try:
        mount(f"size={MIB}", path)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("only root may mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_and_a_read_only_data_root_are_named_and_freeing_it_is_enough(
    disk: Path, tmp_path: Path, chance: random.Random, tries: int
) -> None:
    place = Place(disk, tmp_path / "home")
    before = place.overrides
    for seed in range(tries):
        place.overrides = (*before, f"seed={seed}", f"data.seed={seed}")
        used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
        free = int(chance.uniform(LEAST, NEEDED) * MIB)
        mount(f"remount,size={used + free}", disk)
        errors = Retraining(place).wait()
        assert errors, f"{free} bytes were enough"
        assert any(NAMED.search(error) for error in errors), errors
        mount("remount,size=64m", disk)
        assert Retraining(place).wait() == []
    mount("remount,ro", disk)
    place.overrides = (*before, "seed=9", "data.seed=9")
    errors = Retraining(place).wait()
    assert any(NAMED.search(error) for error in errors), errors
    mount("remount,rw", disk)
    assert Retraining(place).wait() == []
    assert store.verify(store.latest(place.layout.models("convnext_model"))).seed == 9
