"""``full`` without hub and GPU: ``python -m benchmarks.rehearsal data.folder=FOLDER``.

With ``probe.pretrained=DIRECTORY``, a ConvNeXt-V2-Tiny in the hub's names and format is pretrained
to give the embeddings of that DINOv2, and fine-tuned by the settings of ``full`` on small images;
beside it, the same from random weights. Printed is what shows that each part of the recipe does
what it should. ``--every 2`` takes every second patient. Given again, the command does not pretrain
again.
"""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from benchmarks.measure import machine
from benchmarks.pretraining import embeddings, pretrain
from benchmarks.watching import Watch, Watched, layer
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import base_weights, networks
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.progress import Progress
from cxr_assets.radiographs import inventory, raw
from cxr_assets.radiographs.augmentation import Augmenter
from cxr_assets.radiographs.datamodule import OnDisk
from cxr_assets.radiographs.preparation import prepare
from cxr_serving.model.bundle import HISTORY_FILE, WEIGHTS_FILE

# bf16 as on a GPU. The probe's backbone is no part of the rehearsed training.
SHORT = ("data=folder", "data.image_size=96", "trainer.max_epochs=3", "trainer.precision=bf16")
TEACHER = "data.image_size=224"


def main() -> None:
    """Prepare, pretrain, fine-tune twice, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("build/rehearsal"))
    parser.add_argument("--every", type=int, default=1, help="take every n-th patient")
    parser.add_argument("--epochs", type=int, default=4, help="of pretraining")
    parser.add_argument("overrides", nargs="*", help="of the experiment, after those of this file")
    arguments = parser.parse_args()
    progress = partial(print, flush=True)
    root: Path = arguments.root.resolve()
    overrides = [*SHORT, *arguments.overrides]
    experiment = compose("full", overrides)
    teacher, images = Layout(root / "teacher"), Layout(root / "images")
    _prepare(teacher, compose("full", [*overrides, TEACHER]), arguments.every, progress)
    _prepare(images, experiment, arguments.every, progress)

    weights = root / "convnextv2-tiny"
    targets = embeddings(experiment, teacher, progress)
    curve = pretrain(weights, experiment, images, targets, arguments.epochs, progress)
    print(f"\n{machine()}")
    _print("Pretraining: mean squared error", curve, "g", ".3f", ".3f")
    _show_names(weights, images, compose("full", [*overrides, f"model.pretrained={weights}"]))
    _show_augmentation(images, experiment)

    watched, histories = {}, {}
    for name, place in (("pretrained", str(weights)), ("random", "null")):
        progress(f"\nfine-tuning from {name} weights")
        recipe = Watched(compose("full", [*overrides, f"model.pretrained={place}"]))
        plan = replace(make_plan("convnext_model", recipe.experiment, images), recipe=recipe)
        plan.discard()
        fit(plan, progress, force=True)
        recipe.watch.finish(plan)
        watched[name] = recipe.watch
        histories[name] = pd.read_csv(plan.work / HISTORY_FILE)
        if name == "pretrained":
            _show_watched(recipe.watch, load_file(weights / WEIGHTS_FILE))
            progress(f"\nexported as {export(plan, point=False, progress=progress)[0]}")
        plan.discard()
    _show_curves(watched, histories)


def _prepare(layout: Layout, experiment: Experiment, every: int, progress: Progress) -> None:
    data, classes = experiment.data, experiment.classes
    images = raw.collect(data, classes, layout, progress)
    numbers, _ = pd.factorize(images.inventory["patient"], sort=True)
    chosen = images.inventory[numbers % every == 0]
    some = replace(images, inventory=chosen, data_version=inventory.data_version(chosen))
    prepare(layout, some, data, classes, progress)


def _show_names(weights: Path, images: Layout, experiment: Experiment) -> None:
    config = make_plan("convnext_model", experiment, images).network
    network = networks.build(config)
    _, report = base_weights.read(weights, network.config)
    state = load_file(weights / WEIGHTS_FILE)
    rows = {
        "tensors in model.safetensors": len(state),
        "parameters": f"{sum(value.numel() for value in state.values()):,}",
        "first parts of names": ", ".join(sorted({name.split(".")[0] for name in state})),
        "missing": _listed(report["missing_keys"]),
        "unexpected": _listed(report["unexpected_keys"]),
        "of another shape": _listed(key for key, *_ in report["mismatched_keys"]),
    }
    _print("Names", _listing(rows))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _show_augmentation(layout: Layout, experiment: Experiment) -> None:
    """How far the training images are from those that they are made of."""
    torch.manual_seed(0)
    data = OnDisk(layout.processed, "train")
    images, _ = data[torch.arange(min(len(data), 256))]
    varied = Augmenter(experiment.trainer.augmentation)(images)
    original, mirrored = _likeness(varied, images), _likeness(varied, images.flip(-1))
    grey = varied.mean(dim=(1, 2)) - images.float().mean(dim=(1, 2))
    rows = {
        "more like its horizontal flip (0.5 is set)": float((mirrored > original).float().mean()),
        "correlation with the nearer of the two, median": float(
            torch.maximum(original, mirrored).median()
        ),
        "change of the mean grey of 0 to 255, standard deviation": float(grey.std()),
    }
    _print(f"Augmentation of {len(images)} training images", _listing(rows), "", ".2f")


def _likeness(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Correlation [N] of images [N, H, W]."""
    one, other = (each.float().flatten(1) for each in (ours, theirs))
    one, other = (each - each.mean(dim=1, keepdim=True) for each in (one, other))
    return torch.nn.functional.cosine_similarity(one, other)


def _show_watched(watch: Watch, pretrained: dict[str, torch.Tensor]) -> None:
    start = watch.start
    body = [name for name in start if not name.startswith("classifier.")]
    equal = sum(torch.equal(start[name], pretrained[name]) for name in body)
    head = start["classifier.weight"]
    rows = {
        "body tensors equal to the file's before the first step": f"{equal} of {len(body)}",
        "new head before the first step": f"{tuple(head.shape)}, deviation {head.std():.4f}",
        "optimiser steps": len(watch.rates),
        "largest difference of the average to its own definition": f"{watch.difference:.1e}",
    }
    _print("Start, steps, average", _listing(rows))
    rates = pd.DataFrame(watch.rates, columns=["head", "stem"]).rename_axis("step")
    points = [round(share * (len(rates) - 1)) for share in (0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1)]
    _print("Learning rate", rates.iloc[points].reset_index(), "g", ".2e", ".2e")
    layers: dict[str, list[str]] = {}
    for name in start:
        layers.setdefault(layer(name), []).append(name)
    table = [
        {
            "layer": place,
            "parameters": f"{sum(start[name].numel() for name in names):,}",
            "peak learning rate": watch.peaks[names[0]],
            "relative change of weights": watch.change(names),
        }
        for place, names in layers.items()
    ]
    _print("Layers", pd.DataFrame(table), "", "", ".2e", ".4f")


def _show_curves(watched: dict[str, Watch], histories: dict[str, pd.DataFrame]) -> None:
    columns = ["train_loss", "val_loss", "val_macro_f1", "val_auroc", "seconds"]
    table = pd.concat(
        [history[columns].set_index(history["epoch"] + 1) for history in histories.values()],
        keys=histories,
        names=["weights", "epoch"],
    ).reset_index()
    title = "Learning curves (validation by the average of the weights)"
    _print(title, table, "", "g", ".3f", ".3f", ".3f", ".3f", ".0f")
    last = [{"weights": name, **watch.last} for name, watch in watched.items()]
    _print("Macro F1 after the last step", pd.DataFrame(last), "", ".3f", ".3f")


def _listing(rows: Mapping[str, object]) -> pd.DataFrame:
    return pd.DataFrame({"what": list(rows), "value": list(rows.values())})


def _print(title: str, table: pd.DataFrame, *formats: str) -> None:
    print(f"\n## {title}\n\n{table.to_markdown(index=False, floatfmt=formats)}", flush=True)


if __name__ == "__main__":
    main()
