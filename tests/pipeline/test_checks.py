import json

import dagster as dg
import pandas as pd
import pytest
import tiny

from cxr_assets import checks
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DATASET_FILE, MANIFEST_FILE
from cxr_assets.resources import DataRoot, Experiment
from cxr_serving import bundle


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout(tmp_path)
    tiny.processed(layout)
    path = layout.processed / MANIFEST_FILE
    films = pd.read_parquet(path)
    films["sha256"] = [f"{number:064x}" for number in range(len(films))]
    films.to_parquet(path)
    return layout


def passed(check, layout: Layout, **resources) -> bool:
    return check(data_root=DataRoot(path=str(layout.root)), **resources).passed


def rewrite(layout: Layout, column: str) -> None:
    """Give the first film of test what the first film of train has in ``column``."""
    path = layout.processed / MANIFEST_FILE
    films = pd.read_parquet(path)
    first = {split: films.index[films["split"] == split][0] for split in ("train", "test")}
    films.loc[first["test"], column] = films.loc[first["train"], column]
    films.to_parquet(path)


def test_clean_data_passes(layout):
    assert passed(checks.patients_disjoint, layout)
    assert passed(checks.no_class_empty, layout)
    assert passed(checks.no_duplicates_across_splits, layout)


def test_a_patient_in_two_splits_is_found(layout):
    rewrite(layout, "patient")
    assert not passed(checks.patients_disjoint, layout)


def test_a_film_in_two_splits_is_found(layout):
    rewrite(layout, "sha256")
    assert not passed(checks.no_duplicates_across_splits, layout)


def test_an_empty_class_is_found(layout):
    path = layout.processed / DATASET_FILE
    record = json.loads(path.read_text())
    record["counts"]["val"]["normal"] = 0
    path.write_text(json.dumps(record))
    assert not passed(checks.no_class_empty, layout)


def test_a_bundle_that_is_not_whole_is_found(layout):
    check = checks.convnext_bundle_verifies
    assert not passed(check, layout), "no bundle at all"
    directory = tiny.publish(layout, "convnext_model", tiny.convnext(), "d" * 64)
    assert passed(check, layout)
    weights = directory / bundle.WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert not passed(check, layout)


@pytest.mark.parametrize(
    ("interval", "beats"), [([0.03, 0.07], True), ([0.01, 0.09], False), ([-0.01, 0.3], False)]
)
def test_the_probe_must_be_beaten_by_the_margin_beyond_chance(layout, interval, beats):
    layout.reports.mkdir()
    metrics = {
        "macro_f1": 0.80,
        "baseline": {"macro_f1": 0.75},
        "comparison": {"macro_f1": {"estimate": 0.05, "interval": interval, "p": 0.01}},
    }
    (layout.reports / "metrics.json").write_text(json.dumps(metrics))
    experiment = Experiment(preset="demo", overrides="margin=0.02")
    assert passed(checks.beats_probe, layout, experiment=experiment) is beats


@pytest.mark.parametrize(("interval", "worse"), [([-0.1, 0.02], False), ([-0.1, -0.02], True)])
def test_a_model_that_is_worse_than_the_released_one_beyond_chance_is_a_warning(
    layout, interval, worse
):
    layout.reports.mkdir()
    difference = {"estimate": -0.04, "interval": interval, "p": 0.5}
    metrics = {"regression": {"released": "before", "macro_f1": difference}}
    (layout.reports / "metrics.json").write_text(json.dumps(metrics))
    result = checks.not_worse_than_released(data_root=DataRoot(path=str(layout.root)))
    assert result.passed is not worse
    assert result.severity == dg.AssetCheckSeverity.WARN


def test_without_a_release_there_is_nothing_to_be_worse_than(layout):
    layout.reports.mkdir()
    (layout.reports / "metrics.json").write_text(json.dumps({"regression": None}))
    assert passed(checks.not_worse_than_released, layout)
