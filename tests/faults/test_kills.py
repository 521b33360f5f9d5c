"""A retraining that is killed, at a chosen moment and at random ones."""

import random
import re
import time
from pathlib import Path

from faults.retraining import Place, Retraining

from cxr_assets.radiographs import dataset
from cxr_serving.model import store

LEFTOVER = re.compile(r"\.(partial|retired|deleted)$")


def test_a_killed_retraining_is_over_and_the_next_one_completes_it(
    tmp_path: Path, chance: random.Random, tries: int
) -> None:
    place = Place(tmp_path / "data", tmp_path / "home")
    bundles = place.layout.models("convnext_model")
    started = time.monotonic()
    first = Retraining(place, stop_at="cxr_serving.model.store.write_pointer")
    assert first.wait() == ["stopped"], "between rename and pointer"
    duration = time.monotonic() - started
    first.kill()
    [version] = store.versions(bundles)
    assert store.read_pointer(bundles) is None
    assert_over(place)

    assert Retraining(place).wait() == []
    assert store.latest(bundles).name == version, "the finished one is found, and pointed to"
    place.overrides = (*place.overrides, "seed=1", "data.seed=1")
    for _ in range(tries):
        killed = Retraining(place)
        killed.process.join(chance.uniform(0, duration))
        killed.kill()
        assert_over(place)
        assert store.latest(bundles).name == version or len(store.versions(bundles)) == 2

    assert Retraining(place).wait() == []
    assert_over(place)
    assert len(store.versions(bundles)) == 2
    assert store.verify(store.latest(bundles)).seed == 1
    dataset.verify(place.layout.processed)
    assert not [path for path in place.layout.root.rglob(".*") if LEFTOVER.search(path.name)]
    assert not list(place.layout.root.glob("work/*/"))


def assert_over(place: Place) -> None:
    """The sensor finds what is dead, and nothing is shown as running, here or there."""
    place.tend()
    ours, theirs = place.states()
    assert not {"STARTED", "STARTING", "CANCELING"} & set(ours), ours
    assert "RUNNING" not in theirs, theirs
