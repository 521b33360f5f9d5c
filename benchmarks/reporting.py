"""Export and report of 624 test images: ``python -m benchmarks.reporting [OVERRIDE ...]``.

The network is that of ``scratch``, trained for one epoch, as what follows does not depend on how
much it has learned; overrides are of that experiment. Without ``data.folder=...`` the images are
synthetic.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.measure import machine, seconds
from cxr_assets.evaluation.report import write_report
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.preparation import prepare
from cxr_serving.model import store
from cxr_serving.model.predictor import Predictor

ASSETS = ("convnext_model", "dinov2_probe")
BAR = 20
# Per class: a fifth is for testing, with 624 images or a few more or less.
PATIENTS = 545
# Images whose forward passes are timed apart.
TIMED = 64


def main() -> None:
    """Print the table, and what a forward pass takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of the experiment scratch")
    given: list[str] = parser.parse_args().overrides
    if not any(override.startswith("data.folder=") for override in given):
        made = ("data=synthetic", f"data.synthetic_patients={PATIENTS}", "data.image_size=160")
        given = [*made, *given]
    experiment = compose("scratch", [*given, "trainer.max_epochs=1"])
    with TemporaryDirectory() as temporary:
        _measure(experiment, Layout(Path(temporary)))


def _measure(experiment: Experiment, layout: Layout) -> None:
    sources = raw.collect(experiment.data, experiment.classes, layout, _quiet)
    prepare(layout, sources, experiment.data, experiment.classes, _quiet)
    plans = [make_plan(asset, experiment, layout) for asset in ASSETS]
    tested = sum(plans[0].dataset.counts["test"].values())
    print(f"\nExport, and report of {tested} test images\n{machine()}\n")
    print("| | s | s of the processors | bar | |\n|---|---:|---:|---:|---|")
    for plan in plans:
        fit(plan, _quiet)
        _show(f"export of {plan.asset}", partial(export, plan))
    ours, theirs = (store.latest(plan.bundles) for plan in plans)
    _show("report", partial(write_report, layout, ours, theirs, _quiet, experiment.release.rule))
    predictor, size = Predictor(ours), experiment.data.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (TIMED, size, size), np.uint8)
    each = seconds(lambda: predictor.answer(pixels)) / TIMED
    print(f"\nan image takes the main model and its gate {each * 1000:.1f} ms")


def _show(name: str, step: Callable[[], object]) -> None:
    before = time.process_time()
    taken = seconds(step)
    spent = time.process_time() - before
    verdict = "" if taken <= BAR else "above the bar"
    print(f"| {name} | {taken:.1f} | {spent:.1f} | {BAR} | {verdict} |", flush=True)


def _quiet(line: str) -> None:
    pass


if __name__ == "__main__":
    main()
