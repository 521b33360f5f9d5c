import re

import pytest
from radiographs.handmade import Row, images, make, row, write

from cxr_assets.radiographs import dataset
from cxr_assets.radiographs.preparation import PreparationError
from cxr_assets.sources import Source
from cxr_serving.model.dataset import Change


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    return [row(tmp_path, number) for number in range(40)]


def test_a_table_that_was_cut_off_is_an_error_and_both_remedies_work(layout, tmp_path, rows):
    record, _ = make(layout, images(tmp_path, rows))
    cut = images(tmp_path, rows[:30])
    with pytest.raises(
        PreparationError, match=r"10 of the 40 images .*labels\.csv are listed no more"
    ) as raised:
        make(layout, cut)
    assert dataset.verify(layout.processed) == record, "the last dataset is whole"
    assert make(layout, images(tmp_path, rows))[0] == record
    named = re.search(r"data\.max_removed_fraction=(\S+) for", str(raised.value))
    assert named
    shrunk, _ = make(layout, cut, max_removed_fraction=named[1])
    assert shrunk.changes.total.removed == 10
    assert make(layout, cut)[0].data_version == shrunk.data_version


def test_what_moved_or_changed_is_not_removed(layout, tmp_path, rows):
    make(layout, images(tmp_path, rows))
    for number in range(20):
        rows[number] = row(tmp_path, number, path=f"moved/{number}.png")
    for number in range(20, 40):
        write(tmp_path / "ours" / f"{number}.png", number + 100)
        rows[number] = row(tmp_path, number)
    record, _ = make(layout, images(tmp_path, rows))
    assert record.changes.total == Change(added=20, removed=20, replaced=20)


def test_each_source_counts_alone_and_another_or_a_synthetic_one_does_not(layout, tmp_path, rows):
    few = [row(tmp_path, number, "few") for number in range(100, 108)]
    make(layout, images(tmp_path, rows + few))
    with pytest.raises(PreparationError, match=r"3 of the 8 images .*few"):
        make(layout, images(tmp_path, rows + few[3:]))
    make(layout, images(tmp_path, rows + [row(tmp_path, n, "few") for n in range(200, 208)]))
    make(layout, images(tmp_path, rows))
    made = Source(name="ours", source="synthetic", synthetic_patients=10)
    make(layout, images(tmp_path, rows[:30], (made,)))
