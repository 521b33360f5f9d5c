"""The gate that export fits, on synthetic images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image

from cxr_assets.layout import Layout
from cxr_assets.learning import gate as gates
from cxr_assets.radiographs import alteration, anatomy, dataset
from cxr_assets.radiographs.alteration import EXPECTED
from cxr_serving.model.bundle import GATE_FILE, GateRecord
from cxr_serving.model.gate import REASONS, Gate, Reason

CLASSES = tiny.CLASSES
SIZE = tiny.SIZE


def network(images: np.ndarray) -> np.ndarray:
    """Features that say little: mean grey levels of quarters."""
    half = images.shape[1] // 2
    means = images.reshape(len(images), 2, half, 2, half).mean(axis=(2, 4))
    return means.reshape(len(images), 4).astype(np.float32)


def synthetic(label: str, *seed: int) -> Image.Image:
    rng = np.random.default_rng([*seed, CLASSES.index(label)])
    exposed = anatomy.expose(anatomy.Anatomy.sample(rng), label, rng)
    return exposed.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, number in (("_ALTERED", 60), ("_MEASURED", 10), ("_PICTURES", 4)):
            patch.setattr(gates, name, number)
        yield


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """34 training and 34 validation images of each class; the file of one of these is in colour."""
    layout = Layout(tmp_path_factory.mktemp("synthetic"))
    tiny.processed(layout, images=34, test_images=1)
    for split in ("train", "val"):
        for file in sorted((layout.processed / split).glob("*/*.png")):
            number = int(file.stem.removeprefix("image-"))
            synthetic(file.parent.name, len(split), number).save(file)
    manifest = layout.processed / dataset.MANIFEST_FILE
    rows = pd.read_parquet(manifest)
    in_colour = rows["file"] == "val/normal/image-5.png"
    rows.assign(colour=0.5 * in_colour).to_parquet(manifest)
    return layout.processed


def fit(processed: Path) -> tuple[Gate, GateRecord]:
    files = dataset.kept(processed, "val")["file"].tolist()
    features = network(dataset.read(processed, files, SIZE))
    return gates.fit(processed, CLASSES, SIZE, network, features)


@pytest.fixture(scope="module")
def fitted(processed: Path) -> tuple[Gate, GateRecord]:
    return fit(processed)


def judge(gate: Gate, images: np.ndarray) -> list[tuple[Reason, ...]]:
    grey = np.zeros(len(images), np.float32)
    return [verdict.reasons for verdict in gate.judge(images, grey, network(images))]


def test_other_images_are_accepted_and_altered_ones_rejected_for_what_they_are(
    fitted: tuple[Gate, GateRecord],
) -> None:
    gate, _ = fitted
    others = np.stack([np.asarray(synthetic(label, 9, n)) for label in CLASSES for n in range(3)])
    assert judge(gate, others) == [()] * len(others)
    for kind, reason in EXPECTED.items():
        assert judge(gate, alteration.apply(kind, others, 9)) == [(reason,)] * len(others), kind


def test_record_says_what_was_rejected(fitted: tuple[Gate, GateRecord]) -> None:
    _, record = fitted
    assert record.training == 102
    assert record.validation.images == 102
    rejected = {reason: check.validation.rejected for reason, check in record.checks.items()}
    assert rejected.pop("colour") == 1
    assert not any(rejected.values()), "one in a hundred of 102 would be more than 1 %"
    assert record.validation.rejected == 1
    assert record.validation.interval == pytest.approx((0.0017, 0.0535), abs=1e-4)
    assert list(record.checks) == list(REASONS)
    assert record.checks["flipped"].found.rejected == 10
    assert record.checks["rotated_90"].threshold == record.checks["not_chest"].threshold
    assert record.checks["colour"].threshold == pytest.approx(0.06)
    assert GateRecord.model_validate_json(record.model_dump_json()) == record


def test_the_same_images_give_the_same_file(
    processed: Path, fitted: tuple[Gate, GateRecord], tmp_path: Path
) -> None:
    fitted[0].write(tmp_path)
    first = (tmp_path / GATE_FILE).read_bytes()
    fit(processed)[0].write(tmp_path)
    assert (tmp_path / GATE_FILE).read_bytes() == first


def test_few_images_leave_the_check_of_the_colour_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    tiny.processed(layout)
    gate, record = fit(layout.processed)
    noise = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
    assert judge(gate, noise) == [(), ()]
    coloured = gate.judge(noise, np.ones(2, np.float32), network(noise))
    assert [verdict.reasons for verdict in coloured] == [("colour",)] * 2
    assert record.checks["not_chest"].threshold is None
    colour = record.checks["colour"].validation
    assert (colour.rejected, colour.images) == (3, 3), "those of the validation images are"
    assert GateRecord.model_validate_json(record.model_dump_json()) == record
