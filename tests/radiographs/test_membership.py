from pathlib import Path

import pandas as pd
import pytest
import tiny

from cxr_assets.layout import Layout
from cxr_assets.radiographs import membership
from cxr_assets.radiographs.dataset import DatasetError, manifest
from cxr_assets.radiographs.membership import MembershipError

COLUMNS = ["split", "class", "sha256"]


def test_what_is_written_is_read(layout: Layout, tmp_path: Path) -> None:
    tiny.processed(layout, images=2)
    membership.write(tmp_path, layout.processed)
    images = membership.read(tmp_path)
    expected = manifest(layout.processed).query("kept")
    assert list(images.columns) == COLUMNS
    assert sorted(images.to_records(index=False).tolist()) == sorted(
        expected[COLUMNS].to_records(index=False).tolist()
    )


def test_neither_order_nor_text_says_which_file_or_patient(layout: Layout, tmp_path: Path) -> None:
    tiny.processed(layout)
    membership.write(tmp_path, layout.processed)
    images = membership.read(tmp_path)
    assert images.equals(images.sort_values(["split", "sha256"], ignore_index=True))
    assert "image-" not in (tmp_path / membership.SPLIT_FILE).read_text()


def test_an_image_that_is_left_out_is_not_listed(layout: Layout, tmp_path: Path) -> None:
    tiny.processed(layout)
    path = layout.processed / "manifest.parquet"
    table = pd.read_parquet(path)
    table["reason"] = table["reason"].astype(object)
    table.loc[0, ["kept", "reason", "file"]] = [False, "corrupt: cut", None]
    table.to_parquet(path)
    membership.write(tmp_path, layout.processed)
    assert table["sha256"][0] not in set(membership.read(tmp_path)["sha256"])


def test_without_a_dataset_nothing_is_written(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="materialise processed_dataset"):
        membership.write(tmp_path, layout.processed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"split,sha256\ntrain,00\n", "has the columns split, sha256, not split, class, sha256"),
    ],
)
def test_a_broken_list_is_named_with_what_to_do(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / membership.SPLIT_FILE).write_bytes(content)
    with pytest.raises(MembershipError, match=rf"split\.csv {message}.*train the model again"):
        membership.read(tmp_path)
