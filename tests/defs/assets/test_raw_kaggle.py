from pathlib import Path

import dagster as dg
import pytest
from radiographs import tables

from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.resources import DataRoot, Experiment


@pytest.mark.parametrize("skipped", [0, 2])
def test_metadata_count_images_and_give_reasons(tmp_path: Path, skipped: int) -> None:
    table = tables.write(tmp_path, *tables.ROWS, *("gone.png,Viral,p9", "x.png,viral,")[:skipped])
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(
        "path,label\nimages/b.png,viral\nimages/b.png,normal\nnowhere.png,viral\n"
    )
    words = " ".join(
        f"data.labels.{word}={label}" for word, label in tables.LABELS.items() if label
    )
    result = raw_kaggle(
        dg.build_asset_context(),
        experiment=Experiment(
            preset="scratch",
            overrides=f"data=table data.table={table} data.corrections={corrections} {words}",
        ),
        data_root=DataRoot(path=str(tmp_path / "data")),
        mlflow=None,
    )
    metadata = result.metadata
    assert metadata["gate"].startswith("not judged: there is no model yet")
    assert (metadata["images"], metadata["skipped"]) == (6, skipped)
    for name in ("table", "north", "south", "viral_pneumonia", "train"):
        assert name in metadata["counts"].value
    assert ("gone.png" in metadata["skipped_rows"].value) == bool(skipped)
    assert metadata["corrections_without_image"] == ["row 4: nowhere.png"]
