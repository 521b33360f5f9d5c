"""``make ray``: a cluster of two nodes beside one machine, then faults at random moments."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from random import Random

import pandas as pd

from benchmarks.cluster.comparison import compare
from benchmarks.cluster.faults import FAULTS, strike, until_gone
from benchmarks.cluster.nodes import Nodes, nodes
from benchmarks.cluster.place import ASSETS, PATIENCE, Place, Server, on


def main() -> None:
    """Compare, strike, and print a table with one row per fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1, help="of each fault")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    given = parser.parse_args()
    print(f"moments by --seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="cxr-ray-") as folder, nodes(Path(folder, "r")) as both:
        alone, spread = Place(Path(folder, "alone")), Place(Path(folder, "spread"), *on(both))
        for place in (alone, spread):
            place.run(*ASSETS)
        compare(alone, spread)
        print(
            "the cluster has made what one machine makes: same PNGs and embeddings, close weights"
        )
        _sweep(both, spread)
        print("a sweep of two trainings, submitted as one job, has left nothing there")
        Path(folder, "mlflow").mkdir()
        with Server(Path(folder, "mlflow"), PATIENCE) as spread.mlflow:
            struck = _struck(both, spread, Random(given.seed), given.tries)
        print(pd.DataFrame(struck).to_string())


def _sweep(both: Nodes, place: Place) -> None:
    table = place.sweep(both, "seed=1,2")
    assert table["overrides"].tolist() == ["seed=1", "seed=2"]
    assert table["version"].str[-8:].nunique() == 2
    until_gone(both)
    assert not list(place.layout.jobs.iterdir())


def _struck(both: Nodes, place: Place, chance: Random, tries: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(tries):
        for fault in FAULTS:
            place.overrides = (*on(both), f"seed={len(rows) + 1}")  # another training each time
            outcome = strike(both, place, fault, chance)
            print(f"{number + 1}/{tries} {outcome}", flush=True)
            rows.append(vars(outcome))
            shutil.rmtree(place.layout.root / "work", ignore_errors=True)
    return rows


if __name__ == "__main__":
    main()
