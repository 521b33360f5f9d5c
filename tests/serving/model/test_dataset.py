from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny import processed

from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DATASET_FILE
from cxr_serving.model.dataset import Dataset


def test_a_report_repeats_all_of_the_record_and_nothing_else(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    record = processed(layout)
    content = (layout.processed / DATASET_FILE).read_text()
    assert Dataset.model_validate_json(content).model_dump() == record.model_dump()
    with pytest.raises(ValidationError, match="patient"):
        Dataset.model_validate(record.model_dump() | {"patient": "planted"})
