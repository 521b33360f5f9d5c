"""How many planted wrong labels the audit finds: ``python -m benchmarks.label_audit FOLDER``.

Overrides of the experiment ``scratch`` follow the folder, such as another backbone: ``probe=...``.
"""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd
from transformers import PreTrainedModel

from cxr_assets.evaluation import suspects
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import base_weights, networks
from cxr_assets.learning.embeddings import embed
from cxr_assets.learning.linear_probe import LinearProbe
from cxr_assets.radiographs import dataset, raw
from cxr_assets.radiographs.preparation import prepare

SEEDS = (0, 1, 2)
FLIPPED = 0.05


def sample(images: pd.DataFrame, number: int | None) -> pd.DataFrame:
    """The images of patients drawn one by one, up to a number of images."""
    patients = np.random.default_rng(0).permutation(images["patient"].unique())
    place = images["patient"].map({patient: rank for rank, patient in enumerate(patients)})
    order = images.assign(place=place).sort_values(["place", "file"], ignore_index=True)
    return order if number is None else order.head(number)


def flip(
    targets: npt.NDArray[np.int64], classes: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Labels of which some are of another class, every other class being as likely, and which."""
    rng = np.random.default_rng(seed)
    flipped = np.zeros(len(targets), dtype=bool)
    flipped[rng.choice(len(targets), round(FLIPPED * len(targets)), replace=False)] = True
    given = targets.copy()
    given[flipped] += rng.integers(1, classes, flipped.sum())
    return given % classes, flipped


def backbone(experiment: Experiment, image_size: int) -> PreTrainedModel:
    """The probe's, as its training makes it."""
    network = networks.dinov2_config(experiment.probe, image_size, experiment.classes)
    number = len(experiment.classes)
    probe = LinearProbe("", number, network, [1.0], [1.0] * number)
    if experiment.probe.pretrained is not None:
        base_weights.load(probe.network, experiment.probe.pretrained, experiment.probe.revision)
    found: PreTrainedModel = probe.network.dinov2
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="images in Kaggle's layout")
    parser.add_argument("overrides", nargs="*", help="of experiment=scratch")
    parser.add_argument("--images", type=int, help="fewer than all of train and val")
    parser.add_argument("--root", type=Path, help="data root, whose embeddings are used again")
    arguments = parser.parse_args()
    folder = f"data.folder='{arguments.folder.resolve()}'"
    experiment = compose("scratch", [folder, *arguments.overrides])
    with nullcontext(arguments.root) if arguments.root else TemporaryDirectory() as root:
        layout = Layout(Path(root))
        sources = raw.collect(experiment.data, experiment.classes, layout, print)
        record, _ = prepare(layout, sources, experiment.data, experiment.classes, print)
        rows = [dataset.kept(layout.processed, split) for split in ("train", "val")]
        images = sample(pd.concat(rows), arguments.images)
        embeddings = embed(backbone(experiment, record.image_size), layout, images, print).numpy()
    targets = dataset.labels(images, record.classes)
    print("\n| flipped | of the first N/2 | N | 2 N suspects | flagged | of them flipped | time |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for seed in SEEDS:
        given, flipped = flip(targets, len(record.classes), seed)
        started = time.monotonic()
        probabilities = suspects.out_of_fold(embeddings, given, images["patient"])
        ranked = flipped[np.argsort(-suspects.doubts(probabilities, given), kind="stable")]
        flagged = suspects.likely_errors(probabilities, given)
        seconds = time.monotonic() - started
        number = int(flipped.sum())
        shares = [ranked[:first].mean() for first in (number // 2, number, 2 * number)]
        print(
            f"| {number} of {len(given)} | {' | '.join(f'{share:.1%}' for share in shares)} | "
            f"{flagged.sum()} | {flipped[flagged].mean():.1%} | {seconds:.1f} s |",
            flush=True,
        )
    print(f"\nIn random order {FLIPPED:.1%} of each part would be flipped.")


if __name__ == "__main__":
    main()
