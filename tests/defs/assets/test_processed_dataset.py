"""What the event log of Dagster learns of the images of patients, and what later runs remove."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from radiographs import prepared

from cxr_assets import tracking, written
from cxr_assets.defs.assets.processed_dataset import processed_dataset
from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.resources import DataRoot, Experiment, mlflow
from cxr_assets.evaluation.reports import REPORT
from cxr_assets.layout import Layout
from cxr_assets.radiographs import dataset

VERSION = "20260104T031500Z-1a2b3c4d"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return prepared.twelve_patients(tmp_path / "source")


@pytest.fixture
def materialize(layout: Layout, source: Path):
    """Collect and prepare the images of the folder; returns the metadata of the dataset."""

    def run() -> dict[str, dg.MetadataValue]:
        result = dg.materialize(
            [raw_kaggle, processed_dataset],
            resources={
                "experiment": Experiment(
                    preset="scratch",
                    overrides=f"data.folder={source} data.image_size=32 data.val_fraction=0.3 "
                    "model=convnextv2_demo",
                ),
                "data_root": DataRoot(path=str(layout.root)),
                "mlflow": mlflow,
            },
        )
        [event] = result.asset_materializations_for_node("processed_dataset")
        return dict(event.metadata)

    yield run
    tracking.close("FINISHED")


def test_no_radiograph_is_in_the_event_log_and_what_left_the_folder_leaves_reports(
    materialize: Callable[[], dict[str, dg.MetadataValue]], layout: Layout, source: Path
) -> None:
    metadata = materialize()
    assert "samples" not in metadata
    assert metadata["changes"].value == "This is the first dataset."
    assert not [name for name, value in metadata.items() if "data:image" in str(value)]
    for name in ("counts", "counts_by_source"):
        heading = str(metadata[name].value).splitlines()[0]
        assert [cell.strip() for cell in heading.split("|")[2:-1]] == ["train", "val", "test"]

    images = dataset.manifest(layout.processed).query("split == 'test'")
    report = layout.reports / VERSION
    written.begin(report, REPORT)
    images[["source", "patient", "sha256"]].to_csv(report / "predictions.csv", index=False)
    written.seal(report, REPORT)
    gone = images.iloc[0]
    (source / gone["path"]).unlink()
    materialize()
    left = pd.read_csv(report / "predictions.csv")
    assert set(left["sha256"]) == set(images["sha256"]) - {gone["sha256"]}


def test_a_week_without_new_images_says_so(
    materialize: Callable[[], dict[str, dg.MetadataValue]], source: Path
) -> None:
    materialize()
    next((source / "train").rglob("*.jpeg")).unlink()
    changed = materialize()
    assert str(changed["changes"].value).startswith("Images in the dataset of 2")
    assert "changes_by_class_and_site" in changed
    again = materialize()
    assert again["changes"].value == (
        f"No image has changed since the last run. {changed['changes'].value}"
    )
    assert "changes_by_class_and_site" not in again
