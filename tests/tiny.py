"""A tiny processed dataset and tiny real bundles, for the packages that read them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import gates
import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import (
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    PreTrainedModel,
)

from cxr_assets.groups import Rule
from cxr_assets.layout import Layout
from cxr_assets.learning import onnx
from cxr_assets.learning.reference import Saved
from cxr_assets.radiographs import membership
from cxr_assets.radiographs.dataset import (
    DATASET_FILE,
    MANIFEST_COLUMNS,
    MANIFEST_FILE,
    DatasetRecord,
)
from cxr_assets.radiographs.naming import EXTERNAL, SPLITS
from cxr_assets.radiographs.naming import KAGGLE_CLASSES as CLASSES
from cxr_serving.model import bundle, store
from cxr_serving.model.bundle import BundleRecord, GateCheck, GateRecord, Rejections
from cxr_serving.model.dataset import Draw
from cxr_serving.model.gate import Gate
from cxr_serving.model.preprocessing import Preprocessing
from cxr_serving.model.reference import Reference

SIZE = 32
SITES = ("east", "north", "west")
# Overrides of experiment=demo that make its two networks tiny.
NETWORKS = (
    "model.hidden_sizes=[8,8,16,16]",
    "model.depths=[1,1,1,1]",
    "probe.hidden_size=32",
    "probe.num_hidden_layers=1",
    "probe.num_attention_heads=2",
    "probe.weight_decays=[1,0.1,0.01]",
)

# A rule for release that every model fulfils, and the overrides that set it.
RULE = Rule(margin=-1, non_inferiority=1, class_loss=1, site_loss=1, calibration_error=1)
LIMITS = tuple(f"release.rule.{name}={limit:g}" for name, limit in RULE)


# Of the files that are in colour.
COLOUR = np.float32(0.5)
# What a bundle records of its gate.
GATE = GateRecord(
    training=90,
    validation=Rejections.of(1, 100),
    checks={
        "not_chest": GateCheck(
            threshold=0.5, validation=Rejections.of(1, 100), found=Rejections.of(99, 100)
        ),
        "unlike_training": GateCheck(threshold=None, validation=Rejections.of(0, 100), found=None),
    },
)


def _labels(classes: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(classes)), "label2id": {c: i for i, c in enumerate(classes)}}


def convnext(classes: Sequence[str] = CLASSES) -> PreTrainedModel:
    """A ConvNeXt V2 with random weights."""
    config = ConvNextV2Config(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=SIZE, **_labels(classes)
    )
    return ConvNextV2ForImageClassification(config)


def dinov2(classes: Sequence[str] = CLASSES) -> PreTrainedModel:
    """A DINOv2 with random weights and a linear head that sees the CLS token only."""
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
        **_labels(classes),
    )
    model = Dinov2ForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight[:, config.hidden_size :] = 0
    return model


def gate() -> Gate:
    """Rejects what is in colour, as every third image of :func:`processed` is."""
    made = gates.rejecting("colour", features=16)
    return replace(made, thresholds=np.where(made.thresholds < 0, COLOUR / 2, made.thresholds))


def publish(
    layout: Layout,
    asset: str,
    model: PreTrainedModel,
    data_version: str,
    *,
    synthetic: bool = True,
    pretrained: str | None = None,
    temperature: float = 1.0,
    with_onnx: bool = False,
    gate: Gate | None = None,
    now: datetime = datetime(2026, 1, 4, 3, tzinfo=UTC),
    draw: Draw | None = None,
) -> Path:
    """Publish ``model``, its head scaled up so that the probabilities differ between images."""
    with torch.no_grad():
        model.classifier.weight *= 30
        for parameter in model.classifier.parameters():
            parameter /= temperature
    fingerprint = sha256(f"{asset}{data_version}{pretrained}".encode()).hexdigest()
    record = BundleRecord(
        asset=asset,
        version=bundle.new_version(fingerprint, now),
        fingerprint=fingerprint,
        classes=tuple(model.config.label2id),
        draw=draw,
        input_size=SIZE,
        created_at=now,
        data_version=data_version,
        code_version="c" * 64,
        seed=3,
        pretrained=pretrained,
        synthetic=synthetic,
        validation={"loss": 1.0, "macro_f1": 0.5},
        temperature=temperature,
        gate=GATE if gate else None,
    )

    def write(directory: Path) -> None:
        model.save_pretrained(directory)
        Preprocessing(SIZE).write(directory)
        if gate is not None:
            gate.write(directory)
        if with_onnx:
            onnx.write(directory, False)
        if layout.processed.exists():
            membership.write(directory, layout.processed)
        images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
        Reference(images, Saved(directory, False).predict(images)).write(directory)
        pd.DataFrame(
            {
                "epoch": [0, 1, 2],
                "train_loss": [1.1, 0.9, 0.8],
                "val_loss": [1.2, 1.0, 1.0],
                "val_macro_f1": [0.3, 0.5, 0.6],
                "seconds": [1.0, 1.0, 1.0],
            }
        ).to_csv(directory / "history.csv", index=False)

    return store.publish(layout.models(asset), record, write)


def processed(
    layout: Layout,
    *,
    synthetic: bool = True,
    test_images: int = 9,
    images: int = 1,
    external: int = 0,
    classes: tuple[str, ...] = CLASSES,
) -> DatasetRecord:
    """Write a dataset of noise.

    Args:
        layout: where to write.
        synthetic: whether the images count as synthetic.
        test_images: images a class in test, of three sites.
        images: images a class in train and in val.
        external: images a class of the source "outside", which has none of the last class.
        classes: names in index order.
    """
    rng = np.random.default_rng(0)
    numbers = {split: dict.fromkeys(classes, images) for split in SPLITS}
    numbers["test"] = dict.fromkeys(classes, test_images)
    if external:
        numbers[EXTERNAL] = dict.fromkeys(classes, external) | {classes[-1]: 0}
    rows = []
    for split, labels in numbers.items():
        source = "outside" if split == EXTERNAL else "synthetic"
        for label, of_class in labels.items():
            folder = layout.processed / split / label
            folder.mkdir(parents=True)
            for number in range(of_class):
                low = rng.integers(0, 200)
                image = rng.integers(low, 256, (SIZE, SIZE), dtype=np.uint8)
                Image.fromarray(image).save(folder / f"image-{number}.png")
                file = f"{split}/{label}/image-{number}.png"
                rows.append(
                    {
                        **{"source": source, "path": file, "split": split, "class": label},
                        **{"given_label": label, "patient": f"{source}/{file}"},
                        **{"site": SITES[number % 3], "acquired": f"{2024 + number % 2}-03-01"},
                        **{"view": "PA", "sex": "FM"[number % 2], "age": float(number)},
                        **{"sha256": sha256(image.tobytes()).hexdigest(), "bits": 8},
                        **{"width": SIZE, "height": SIZE, "kept": True, "file": file},
                        **{
                            "pixels": sha256(image.tobytes()).hexdigest(),
                            "colour": 0 if number % 3 else COLOUR,
                        },
                    }
                )
    manifest = pd.DataFrame(rows, columns=MANIFEST_COLUMNS)
    manifest.to_parquet(layout.processed / MANIFEST_FILE)
    record = DatasetRecord(
        data_version=sha256(str(synthetic).encode()).hexdigest(),
        raw_data_version="0" * 64,
        classes=classes,
        synthetic=synthetic,
        image_size=SIZE,
        decoding="d" * 64,
        val_fraction=0.15,
        test_fraction=0.15,
        seed=0,
        counts=numbers,
        sources={
            source: of_source["split"].value_counts().to_dict()
            for source, of_source in manifest.groupby("source")
        },
        sites={
            site: of_site["split"].value_counts().to_dict()
            for site, of_site in manifest.groupby("site")
        },
        skipped={},
    )
    (layout.processed / DATASET_FILE).write_text(record.model_dump_json())
    return record
