from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cxr_assets.experiment import compose
from cxr_assets.sources import Data, Source

TABLE = {"name": "ours", "source": "table", "table": "labels.csv"}


def data(**changes: Any) -> Data:
    values = compose("demo").data.model_dump()
    return Data.model_validate({**values, **changes})


def test_the_short_form_is_a_list_of_one_source_named_after_its_kind() -> None:
    [source] = data(source="table", table="labels.csv", labels={"Viral": "viral"}).listed
    assert (source.name, source.source, source.use) == ("table", "table", "all")
    assert (source.table, source.labels) == (Path("labels.csv"), {"Viral": "viral"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": None}, "set either data.source"),
        ({"sources": [TABLE]}, "set either data.source"),
        ({"source": None, "sources": [TABLE, TABLE]}, "two sources named ours"),
        ({"source": None, "sources": [{**TABLE, "use": "test"}]}, "none to train on"),
        ({"source": "table"}, "source table needs a table: set data.table"),
        ({"source": "folder", "folder": ""}, "source folder needs a folder: set data.folder"),
        ({"synthetic_patients": 2}, "it must be at least 3"),
    ],
)
def test_sources_that_contradict_each_other_are_rejected(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        _ = data(**changes).listed


@pytest.mark.parametrize("name", ["unknown", "Ours", "a/b", "", "-a", "a" * 33])
def test_a_name_that_could_not_stand_in_a_path_or_a_patient_is_rejected(name: str) -> None:
    with pytest.raises(ValidationError):
        Source.model_validate({**TABLE, "name": name})


def test_without_places_no_path_of_this_machine_is_left() -> None:
    secret = "/home/somebody"
    two = [{**TABLE, "table": secret}, {"name": "b", "source": "folder", "folder": secret}]
    given = data(source=None, sources=two, corrections=secret)
    assert secret in given.model_dump_json()
    assert secret not in given.without_places().model_dump_json()
