"""Changes of a bundle's files before they are hashed: ``publish_bundle(finish=...)``."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cxr_assets.learning import onnx
from cxr_serving.model import reference
from cxr_serving.model.bundle import ONNX_FILE
from cxr_serving.model.reference import Reference

Edit = Callable[[Path], object]
WEIGHTS = "model.safetensors"
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8) // np.arange(
    1, 6, dtype=np.uint8
).reshape(5, 1, 1)


def in_order(*edits: Edit) -> Edit:
    return lambda directory: [edit(directory) for edit in edits]


def without(*names: str) -> Edit:
    return lambda directory: [(directory / name).unlink() for name in names]


def in_torch(edit: Edit) -> Edit:
    return in_order(without(ONNX_FILE), edit)


def decided(directory: Path) -> None:
    """Answers that are far apart, as a trained network's are."""
    edit_weights(lambda tensors: tensors["classifier.weight"].mul_(40))(directory)
    onnx.write(directory, flip_averaging=False)
    answer(directory)


def answer(directory: Path) -> None:
    answers = onnx.predict(directory / ONNX_FILE, IMAGES)
    assert np.ptp(answers, axis=0).max() > 0.1
    Reference(IMAGES, answers).write(directory)


def other_reference(directory: Path) -> None:
    kept = reference.read(directory)
    Reference(kept.images, kept.probabilities + np.float32([0.01, -0.01, 0])).write(directory)


def edit_json(name: str, **changes: object) -> Edit:
    def edit(directory: Path) -> None:
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    def edit(directory: Path) -> None:
        tensors = load_file(directory / WEIGHTS)
        change(tensors)
        save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})

    return edit


def pickle_instead(directory: Path) -> None:
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()


def remote_code(directory: Path) -> None:
    (directory / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(
        "config.json",
        model_type="evil",
        auto_map={
            "AutoConfig": "evil.Config",
            "AutoModelForImageClassification": "evil.Model",
        },
    )(directory)
