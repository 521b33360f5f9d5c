from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from damage import cut, empty
from radiographs.prepared import make, twelve_patients

from cxr_assets.radiographs.dataset import (
    DatasetError,
    DatasetRecord,
    kept,
    labels,
    read,
    samples,
)
from cxr_serving.model.preprocessing import Preprocessing


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return twelve_patients(tmp_path / "chest_xray")


def test_images_and_labels_are_read_in_the_order_of_their_pixels(source, layout):
    make(source, layout)
    rows = kept(layout.processed, "test")
    assert rows["pixels"].is_monotonic_increasing
    images = read(layout.processed, rows["file"], 32)
    assert images.shape == (6, 32, 32)
    assert images.dtype == np.uint8
    classes = DatasetRecord.read(layout.processed).classes
    indices = labels(rows, classes).tolist()
    assert [classes[index] for index in indices] == rows["class"].tolist()
    assert sorted(indices) == [0, 0, 1, 1, 2, 2]
    for path, image, digest in zip(rows["path"], images, rows["pixels"], strict=True):
        assert np.array_equal(image, Preprocessing(32).decode(source / path).pixels)
        assert sha256(image.tobytes()).hexdigest() == digest


def test_reading_names_a_missing_image(source, layout):
    make(source, layout)
    victim = next(layout.processed.glob("test/normal/*.png"))
    victim.unlink()
    with pytest.raises(DatasetError, match=victim.name):
        read(layout.processed, kept(layout.processed, "test")["file"], 32)


@pytest.mark.parametrize("damage", [empty, cut, Path.unlink])
def test_the_advice_of_every_reader_of_a_broken_dataset_helps(damage, source, layout):
    """All say to materialise processed_dataset, which prepares the images."""
    whole, _ = make(source, layout)
    files = kept(layout.processed, "test")["file"].tolist()
    for file, reading in (
        ("manifest.parquet", lambda: kept(layout.processed, "test")),
        ("dataset.json", lambda: DatasetRecord.read(layout.processed)),
        ("test/normal/*.png", lambda: samples(layout.processed, "test", 3)),
        ("test/normal/*.png", lambda: read(layout.processed, files, 32)),
    ):
        damage(next(layout.processed.glob(file)))
        with pytest.raises(DatasetError, match=r"materialise processed_dataset (again|first)"):
            reading()
        make(source, layout)
        reading()
    assert make(source, layout) == (whole, True)


def test_without_a_dataset_the_error_says_what_to_do(layout):
    with pytest.raises(DatasetError, match="materialise processed_dataset first"):
        DatasetRecord.read(layout.processed)
