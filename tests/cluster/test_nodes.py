"""Both nodes of a Ray cluster on this machine; `make ray` has more, and faults at random."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from benchmarks.cluster.comparison import compare
from benchmarks.cluster.faults import strike
from benchmarks.cluster.nodes import Nodes, nodes, working
from benchmarks.cluster.place import ASSETS, Place, on

pytestmark = [
    pytest.mark.skipif(
        find_spec("dagster_ray") is None, reason="Ray is not installed: make .venv/ray"
    ),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def both() -> Iterator[Nodes]:
    # pytest's folders have names that are too long for Ray's sockets.
    with TemporaryDirectory(prefix="ray-") as folder, nodes(Path(folder)) as both:
        yield both


def test_two_nodes_make_what_one_machine_makes_and_a_killed_run_leaves_nothing_there(
    both: Nodes, tmp_path: Path
) -> None:
    alone, spread = Place(tmp_path / "alone"), Place(tmp_path / "spread", *on(both))
    for place in (alone, spread):
        place.overrides = (*place.overrides, "trainer.max_epochs=2")
        place.run(*ASSETS)
    compare(alone, spread)

    table = spread.sweep(both, "seed=1,2")
    assert table["overrides"].tolist() == ["seed=1", "seed=2"]
    assert table["version"].str[-8:].nunique() == 2
    assert not working()
    assert not list(spread.layout.jobs.iterdir())

    spread.overrides = (*on(both), "seed=1")
    outcome = strike(both, spread, "run is killed", Random(0))
    assert outcome.status == "FAILURE"
