"""What a model loses on images of a series, or of a hospital, that it has not seen.

``python -m benchmarks.robustness data.folder=FOLDER [overrides] [--arms NAME=OVERRIDES ...]``
trains ``scratch`` on one part of the images and tests it on the other, for each part that can be
left out (:mod:`benchmarks.leave_out`); and on validation images as simulated scanners make them
(:mod:`cxr_assets.evaluation.scanners`). Images of the ``test`` split take no part: they must not
decide which recipe is kept.

Several arms are compared with the first one on the same images:
``--arms "the recipe=" "less exposure=trainer.augmentation.exposure=0.5"``.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from benchmarks.drops import Measured, content, tables
from benchmarks.leave_out import LeaveOutError, left_out, parts
from benchmarks.measure import machine
from cxr_assets import sweep
from cxr_assets.evaluation.images import validation_split
from cxr_assets.evaluation.robustness import robustness
from cxr_assets.experiment import Experiment, ExperimentError
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.overrides import split
from cxr_assets.progress import Progress
from cxr_assets.training import ASSET, EXPLAINED
from cxr_serving.model.atomic import write_file
from cxr_serving.model.predictor import Predictor


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of the experiment, for all arms")
    parser.add_argument(
        "--arms",
        nargs="+",
        default=["the recipe="],
        metavar="NAME=OVERRIDES",
        help="what is changed in each; the others are compared with the first",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, help="JSON file with every figure")
    parser.add_argument(
        "--root",
        type=Path,
        help="folder that keeps the trainings, so that the same command resumes",
    )
    given = parser.parse_args()
    progress = partial(print, file=sys.stderr, flush=True)
    try:
        with TemporaryDirectory() as temporary:
            root = Path(given.root or temporary).resolve()
            arms = dict(_arms(given.arms, given.overrides, given.seeds))
            results = run(arms, root, given.output, progress)
    except (ExperimentError, LeaveOutError, *EXPLAINED) as error:
        sys.exit(f"error: {error}")
    print(f"\nShift between series or sites, {' '.join(given.overrides)}\n{machine()}")
    print(tables(results))


def _arms(
    given: Sequence[str], overrides: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, list[Experiment]]]:
    """Name of each arm, and its experiment by seed."""
    for text in given:
        name, _, changed = text.partition("=")
        if any(override.startswith("seed=") for override in (*overrides, *split(changed))):
            raise ExperimentError("every arm has the same seeds: name them with --seeds")
        jobs = [
            sweep.expand("scratch", [*overrides, *split(changed), f"seed={seed}"]) for seed in seeds
        ]
        if any(len(of_seed) != 1 for of_seed in jobs):
            raise ExperimentError(f"the arm {name!r} is several trainings: name an arm for each")
        yield name, [job.experiment for (job,) in jobs]


def run(
    arms: dict[str, list[Experiment]], root: Path, output: Path | None, progress: Progress
) -> pd.DataFrame:
    """Train and test every arm with every seed, each part left out once.

    Args:
        arms: experiments of each, by seed.
        root: where the datasets and the trainings go.
        output: JSON file that is kept up to date, if any.
        progress: called with a line per stage.

    Returns:
        One row per training: ``arm``, ``tested``, ``seed``, ``measured``, ``scanners``.
    """
    images, found = parts(next(iter(arms.values()))[0], root, progress)
    for direction in found:
        progress(f"left out: {direction.tested}: {direction.counts(images)}")
    rows: list[dict[str, Any]] = []
    # Seed by seed, so that the figures of what is there are never of one arm alone.
    for of_seed in zip(*arms.values(), strict=True):
        for number, direction in enumerate(found, 1):
            layout = _layout(root, number)
            for arm, experiment in zip(arms, of_seed, strict=True):
                progress(f"{arm}, seed {experiment.seed}, left out: {direction.tested}")
                prepared = left_out(experiment, images, direction, layout, progress)
                directory = train(prepared, layout, progress)
                rows.append(
                    {
                        **{"arm": arm, "tested": direction.tested, "seed": experiment.seed},
                        **judged(Predictor(directory), layout.processed),
                    }
                )
            if output is not None:
                write_file(output, content(pd.DataFrame(rows)))
    return pd.DataFrame(rows)


def _layout(root: Path, number: int) -> Layout:
    """The data root of a part; all parts share embeddings, as they hold the same images."""
    layout, shared = Layout(root / f"left-out-{number}"), Layout(root).embeddings
    for directory in (shared, layout.root):
        directory.mkdir(parents=True, exist_ok=True)
    if not layout.embeddings.exists():
        layout.embeddings.symlink_to(shared, target_is_directory=True)
    return layout


def train(experiment: Experiment, layout: Layout, progress: Progress) -> Path:
    """Train on the processed dataset; returns the bundle, which may be there already."""
    planned = make_plan(ASSET, experiment, layout)
    fit(planned, progress)
    return export(planned, point=False, progress=progress)[0]


def judged(predictor: Predictor, processed: Path) -> dict[str, Any]:
    """What a model loses on the part that is left out, and to simulated scanners."""
    return {
        "measured": Measured.of(predictor, processed),
        "scanners": robustness(predictor, validation_split(processed)),
    }


if __name__ == "__main__":
    main()
