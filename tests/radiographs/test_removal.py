from pathlib import Path

import pytest
from damage import cut
from radiographs import prepared

from cxr_assets import written
from cxr_assets.layout import Layout
from cxr_assets.radiographs import dataset
from cxr_assets.radiographs.dataset import DatasetError
from cxr_assets.radiographs.removal import remove
from cxr_assets.radiographs.withdrawal import WITHDRAWN


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    prepared.make(prepared.twelve_patients(tmp_path / "source"), layout)
    return layout


def test_an_image_is_deleted_and_listed_as_withdrawn(layout: Layout) -> None:
    before = dataset.manifest(layout.processed)
    image = before.iloc[0]
    assert remove(layout, [image["sha256"], "0" * 64]) == 1
    after = dataset.manifest(layout.processed)
    assert not (layout.processed / image["file"]).exists()
    assert list(after.loc[0, ["kept", "reason", "file"]]) == [False, WITHDRAWN, None]
    assert after.iloc[1:].equals(before.iloc[1:])
    assert list(after.dtypes) == list(before.dtypes)
    record = dataset.verify(layout.processed)
    assert sum(record.sources["folder"].values()) == len(before) - 1
    assert remove(layout, [image["sha256"]]) == 0
    assert dataset.verify(layout.processed) == record


def test_where_the_dataset_has_no_such_image_nothing_is_written(layout: Layout) -> None:
    seal = layout.processed / written.RECORD_FILE
    before = seal.stat().st_mtime_ns
    assert remove(layout, ["0" * 64]) == 0
    assert seal.stat().st_mtime_ns == before
    assert remove(Layout(layout.root / "other"), ["0" * 64]) == 0


def test_a_broken_dataset_is_named(layout: Layout) -> None:
    cut(layout.processed / "manifest.parquet")
    with pytest.raises(DatasetError, match=r"manifest\.parquet cannot be read"):
        remove(layout, ["0" * 64])
