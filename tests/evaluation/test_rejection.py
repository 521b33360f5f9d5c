from collections import Counter
from dataclasses import replace
from pathlib import Path

import gates
import numpy as np
import pandas as pd
import pytest
import tiny
from cohort import CLASSES, TARGETS, images
from reporting import Page, bundles

from cxr_assets.evaluation import bootstrap, rejection
from cxr_assets.evaluation.rejection import (
    Sample,
    altered,
    false_rejection,
    learned,
    selective,
)
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.layout import Layout
from cxr_assets.radiographs import dataset
from cxr_assets.radiographs.alteration import ALTERATIONS
from cxr_assets.radiographs.dataset import manifest
from cxr_serving.model.descriptor import LENGTH, describe
from cxr_serving.model.gate import Likeness, Verdict
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import Report

GOOD = Verdict(())


def test_false_rejection_by_class_subgroup_and_site() -> None:
    sites = np.where(np.arange(120) % 3, "north", "south")
    turned = Verdict(("rotated_90", "unlike_training"))
    verdicts = [turned if site == "south" else GOOD for site in sites]
    verdicts[1] = Verdict(("unlike_training",))
    found = false_rejection(images(site=sites), verdicts)
    assert (found.total.images, found.total.rejected) == (120, 41)
    assert list(found.total.reasons.items()) == [("unlike_training", 41), ("rotated_90", 40)]
    by_site = {row.subgroup: row for row in found.subgroups if row.group == "site"}
    assert (by_site["south"].rejected, by_site["north"].rejected) == (40, 1)
    # Wilson: 0.912 to 1 for 40 of 40, for example with statsmodels.
    assert by_site["south"].interval == pytest.approx((0.9124, 1), abs=1e-4)
    assert {name: row.rejected for name, row in found.classes.items()} == {
        "bacterial_pneumonia": 15, "normal": 13, "viral_pneumonia": 13,
    }  # fmt: skip


def test_of_images_it_has_learnt_from_the_network_sees_those_that_look_least_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejection, "_SEEN", 4)
    monkeypatch.setattr(rejection, "_BATCH", 3)
    layout = Layout(tmp_path)
    version = tiny.processed(layout, images=4, test_images=1).data_version
    rows = manifest(layout.processed).query("split == 'train'")
    described = describe(dataset.read(layout.processed, rows["file"].tolist(), tiny.SIZE))
    picture = replace(Likeness.to_anything(LENGTH), precision=np.ones(1, np.float32))
    distances = picture.distance(described)
    # No image is too far by its descriptor, and each is by its features.
    gate = replace(
        gates.rejecting("unlike_training", features=16),
        picture=picture,
        features=replace(Likeness.to_anything(16), precision=np.full(1, 1e9, np.float32)),
    )
    gate = replace(gate, thresholds=np.where(gate.thresholds < 0, distances.max(), np.inf))
    main = Predictor(tiny.publish(layout, "convnext_model", tiny.convnext(), version, gate=gate))
    rejected = [not verdict.accepted for verdict in learned(main, layout.processed, rows)]
    assert np.flatnonzero(rejected).tolist() == np.sort(np.argsort(-distances)[:4]).tolist()


def test_selective_metrics_with_gate_with_uncertainty_and_with_both() -> None:
    wrong, doubtful = np.arange(120) % 10 == 0, np.arange(120) % 4 == 0
    answers = np.where(wrong, (TARGETS + 1) % 3, TARGETS)
    probabilities = np.full((120, 3), 0.05, np.float32)
    probabilities[np.arange(120), answers] = np.where(doubtful, 0.6, 0.9)
    verdicts = [Verdict(("cropped",)) if bad else GOOD for bad in wrong]
    drawn = bootstrap.draws(images().table["patient"])
    found = selective(probabilities, TARGETS, CLASSES, drawn, verdicts)
    assert {name: (row.images, row.accuracy) for name, row in found.items()} == {
        "all": (120, 0.9),
        "accepted": (108, 1),
        "certain": (90, round(84 / 90, 6)),
        "accepted and certain": (84, 1),
    }
    assert found["accepted"].interval == (1, 1)
    nothing = selective(probabilities, TARGETS, CLASSES, drawn, [Verdict(("colour",))] * 120)
    assert nothing["accepted"].images == 0
    assert nothing["accepted"].macro_f1 is None


@pytest.mark.parametrize(("number", "chosen"), [(5, 5), (200, 100)])
def test_a_sample_is_spread_over_all_batches(number: int, chosen: int) -> None:
    sample = Sample(number)
    pixels = np.arange(number, dtype=np.uint8)[:, None, None]
    for start in range(0, number, 64):
        sample.add(pixels[start : start + 64])
    found = sample.pixels().ravel()
    assert len(found) == chosen
    assert (found[0], found[-1]) == (0, number - 1)
    assert np.ptp(np.diff(found)) <= 1


def test_the_report_says_what_the_serving_gate_rejects(reported: Layout) -> None:
    report = latest_report(reported)
    metrics, table = Report.read(report), pd.read_csv(report / "predictions.csv", na_filter=False)
    main = Predictor(bundles(reported)[0])
    pixels = np.stack(
        [main.preprocessing.decode(reported.processed / path).pixels for path in table["path"]]
    )
    rows = manifest(reported.processed).set_index("file").loc[table["path"]]
    verdicts = main.answer(pixels, rows["colour"].tolist()).verdicts
    assert verdicts is not None
    assert table["rejected"].tolist() == [";".join(one.reasons) for one in verdicts]
    found = metrics.gate
    assert found is not None
    rejected = Counter(table["target"][table["rejected"] != ""])
    assert {name: row.rejected for name, row in found.classes.items()} == rejected
    assert 0 < found.total.rejected < found.total.images == metrics.images
    assert {row.subgroup for row in found.subgroups if row.group == "site"} == set(tiny.SITES)
    assert metrics.external["outside"].gate is not None
    text = " ".join(Page((report / "report.html").read_text()).text.split())
    assert f"all images{found.total.images}{found.total.rejected}" in text
    assert "of which it rejects 1.0%" in text


def test_altered_images_are_altered_test_images(reported: Layout) -> None:
    metrics = Report.read(reported.reports)
    assert metrics.gate is not None
    assert set(metrics.gate.altered) == set(ALTERATIONS)
    assert {row.images for row in metrics.gate.altered.values()} == {metrics.images}
    main = Predictor(bundles(reported)[0])
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    main.gate = gates.rejecting("unlike_training", features=16)
    for row in altered(main, pixels).values():
        assert (row.images, row.rejected, row.withheld) == (4, 4, 4)
        assert row.reasons == {"unlike_training": 4}
    main.gate = gates.rejecting(features=16)
    for row in altered(main, pixels).values():
        assert row.rejected == 0
        assert row.withheld == row.uncertain
