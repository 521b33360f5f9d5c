"""Fits of a tiny probe on a tiny dataset."""

from pathlib import Path

import tiny
import torch
from tiny import CLASSES
from transformers import PreTrainedModel

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan


def plan_of(layout: Layout, *overrides: str) -> Plan:
    return make_plan("dinov2_probe", compose("demo", [*tiny.NETWORKS, *overrides]), layout)


def train(layout: Layout, *overrides: str) -> tuple[Path, list[str]]:
    lines: list[str] = []
    plan = plan_of(layout, *overrides)
    fit(plan, lines.append)
    return export(plan)[0], lines


def backbone(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    probe = compose("demo", tiny.NETWORKS).probe
    return networks.build(networks.dinov2_config(probe, tiny.SIZE, CLASSES)).dinov2


def teacher(directory: Path, seed: int = 0) -> tuple[str, ...]:
    """Overrides for distillation from a backbone that is saved in ``directory``."""
    backbone(seed).save_pretrained(directory)
    return ("trainer.distillation=1", f"probe.pretrained={directory}")


def of_embedding(lines: list[str]) -> list[str]:
    return [line for line in lines if "embed" in line]
