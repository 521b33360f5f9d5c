"""Tiny trainings of both models on a dataset of noise."""

from pathlib import Path

import tiny

from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_serving.model import store

OVERRIDES = (*tiny.NETWORKS, "trainer.max_epochs=3", "trainer.batch_size=4")
ASSETS = ("convnext_model", "dinov2_probe")


def experiment(*overrides: str) -> Experiment:
    return compose("demo", [*OVERRIDES, *overrides])


def train(asset: str, layout: Layout, *overrides: str) -> tuple[Path, list[str]]:
    lines: list[str] = []
    plan = make_plan(asset, experiment(*overrides), layout)
    fit(plan, lines.append)
    directory, published = export(plan, "dagster-run")
    assert published
    assert store.latest(layout.models(asset)) == directory
    return directory, lines
