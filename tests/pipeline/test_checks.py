import json

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


@pytest.mark.parametrize(("main", "baseline", "beats"), [(0.80, 0.75, True), (0.76, 0.75, False)])
def test_the_probe_must_be_beaten_by_the_margin(layout, main, baseline, beats):
    layout.reports.mkdir()
    metrics = {"macro_f1": main, "baseline": {"macro_f1": baseline}}
    (layout.reports / "metrics.json").write_text(json.dumps(metrics))
    experiment = Experiment(preset="demo", overrides="margin=0.02")
    assert passed(checks.beats_probe, layout, experiment=experiment) is beats
