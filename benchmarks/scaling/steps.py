"""The steps of a retraining, as the assets call them; and what else grows."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
from fastapi.testclient import TestClient

from benchmarks import images
from cxr_assets.evaluation import suspects
from cxr_assets.evaluation.report import write_report
from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan
from cxr_assets.radiographs import leakage, raw
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.release import promotion
from cxr_assets.release.release import write_release
from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings
from cxr_serving.model import store

Step = Callable[[Experiment, Layout], object]
MAIN, PROBE = "convnext_model", "dinov2_probe"
# Seconds until a service must have loaded its model.
PATIENCE = 120


def _quiet(line: str) -> None:
    pass


def _collect(experiment: Experiment, layout: Layout) -> None:
    raw.collect(experiment.data, experiment.classes, layout, _quiet)


def _prepare(experiment: Experiment, layout: Layout) -> None:
    prepare(layout, raw.read(layout), experiment.data, experiment.classes, _quiet)


def _check(experiment: Experiment, layout: Layout) -> None:
    leakage.pairs_across_splits(layout.processed)


def _fit(asset: str, experiment: Experiment, layout: Layout) -> None:
    fit(plan(asset, experiment, layout), _quiet)


def _export(experiment: Experiment, layout: Layout) -> None:
    for asset in (MAIN, PROBE):
        export(plan(asset, experiment, layout))


def _report(experiment: Experiment, layout: Layout) -> None:
    main, probe = (store.latest(layout.models(asset)) for asset in (MAIN, PROBE))
    write_report(layout, main, probe, _quiet, experiment.release.rule)


def _release(experiment: Experiment, layout: Layout) -> None:
    promotion.decide(layout, write_release(layout, None, experiment, _quiet))


# In the order in which each needs what those before it have made.
RETRAINING: Mapping[str, Step] = {
    "inventory": _collect,
    "preparation": _prepare,
    "leakage check": _check,
    "embedding and probe": partial(_fit, PROBE),
    "epoch": partial(_fit, MAIN),
    "export": _export,
    "report": _report,
    "release": _release,
}


def answer(layout: Layout, requests: int) -> None:
    """Start the service, send one image after the other, stop it."""
    folder = layout.root / "requests"
    images.make(folder, 1)
    content = next(folder.rglob("*.jpeg")).read_bytes()
    with TestClient(create_app(Settings(data_root=layout.root))) as client:
        deadline = time.monotonic() + PATIENCE
        while not client.get("/ready").is_success:
            assert time.monotonic() < deadline, "the service does not become ready"
            time.sleep(0.2)
        for _ in range(requests):
            client.post("/predict", files={"file": ("image.jpeg", content)}).raise_for_status()


def find_similar(number: int) -> None:
    """As checks and audit look for similar images, on descriptors that are made up."""
    rng = np.random.default_rng(0)
    splits = rng.choice(["train", "val", "test"], number, p=[0.7, 0.15, 0.15])
    rows = pd.DataFrame({"split": splits, "class": rng.choice(["a", "b", "c"], number)})
    described = rng.standard_normal((number, leakage._SIDE**2), np.float32)
    leakage._similar(rows, np.arange(number), described, within_splits=True)


def find_strange(number: int) -> None:
    """As the audit looks for outliers, on embeddings that are made up."""
    suspects.strangeness(np.random.default_rng(0).standard_normal((number, 384), np.float32))
