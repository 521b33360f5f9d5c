"""Other classes than Kaggle's, from a dataset to the answers of the service."""

import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import quick
import tiny
from fastapi.testclient import TestClient
from learning.trainings import OVERRIDES
from PIL import Image

import cxr
from cxr_assets.evaluation.report import write_report
from cxr_assets.evaluation.reports import PREDICTIONS_FILE
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import PAGE_FILE, Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan
from cxr_assets.learning.reference import Saved
from cxr_assets.radiographs.dataset import DatasetRecord, kept
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.radiographs.raw import collect
from cxr_assets.release.release import write_release
from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings
from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import Audit, Report

TWO = ("normal", "pneumonia")
FIVE = ("effusion", "fibrosis", "mass", "nodule", "tuberculosis")
SETTINGS = (
    *OVERRIDES,
    *("trainer.max_epochs=1", "trainer.mixup=0.2", "trainer.cutmix=1", "release.rule.margin=-1"),
    f"data.image_size={tiny.SIZE}",
)
PARTICULAR = {
    TWO: (
        *("trainer.class_balance=weights", "data.synthetic_patients=8"),
        *(f"data.labels.{cause}_pneumonia=pneumonia" for cause in ("bacterial", "viral")),
    ),
    FIVE: ("trainer.class_balance=sampling",),
}


@dataclass(frozen=True)
class Trained:
    classes: tuple[str, ...]
    layout: Layout
    experiment: Experiment
    main: Path
    probe: Path
    report: Path
    release: Path


@pytest.fixture(scope="module", params=[TWO, FIVE], ids=["two", "five"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """All of a run: both models, mixed and class-weighted, their report, and a release."""
    classes: tuple[str, ...] = request.param
    layout = Layout(tmp_path_factory.mktemp("classes") / "data")
    experiment = compose(
        "demo", [*SETTINGS, f"classes=[{','.join(classes)}]", *PARTICULAR[classes]]
    )
    if classes == TWO:
        images = collect(experiment.data, classes, layout, print)
        prepare(layout, images, experiment.data, classes, print)
    else:
        tiny.processed(layout, classes=classes, images=6, test_images=6)
    bundles = []
    for asset in ("convnext_model", "dinov2_probe"):
        training = plan(asset, experiment, layout)
        fit(training, lambda line: None)
        bundles.append(export(training)[0])
    with pytest.MonkeyPatch.context() as patch:
        quick.reports(patch)
        report = write_report(layout, *bundles, rule=experiment.release.rule)
        release = write_release(layout, None, experiment)
    return Trained(classes, layout, experiment, *bundles, report, release)


def test_labels_of_the_source_become_classes(trained: Trained) -> None:
    images = kept(trained.layout.processed, "test")
    given = set(map(tuple, images[["given_label", "class"]].to_numpy()))
    if trained.classes == TWO:
        assert given == {
            ("normal", "normal"),
            ("bacterial_pneumonia", "pneumonia"),
            ("viral_pneumonia", "pneumonia"),
        }
    else:
        assert {label for _, label in given} == set(FIVE)


def test_both_bundles_answer_with_the_classes(trained: Trained) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, tiny.SIZE, tiny.SIZE), dtype=np.uint8)
    for bundle in (trained.main, trained.probe):
        assert BundleRecord.read(bundle).classes == trained.classes
        assert Predictor(bundle).predict(images).shape == (3, len(trained.classes))
    answers = Predictor(trained.main).answer(images)
    assert answers.cam is not None
    assert answers.cam.shape[1] == len(trained.classes)
    np.testing.assert_allclose(
        answers.probabilities, Saved(trained.main, False).predict(images), atol=1e-4
    )


def test_the_report_is_about_the_classes(trained: Trained) -> None:
    report = Report.read(trained.report)
    number = len(trained.classes)
    counts = DatasetRecord.read(trained.layout.processed).counts["test"]
    images = sum(counts.values())
    assert tuple(counts) == trained.classes
    assert report.classes == trained.classes
    assert np.shape(report.confusion_matrix) == (number, number)
    assert np.sum(report.confusion_matrix, axis=1).tolist() == list(counts.values())
    for part in report.models:
        assert tuple(part.intervals.classes) == trained.classes
        assert part.auroc_macro_ovr == pytest.approx(np.mean(list(part.auroc_ovr.values())))
        assert part.intervals.average_precision_macro_ovr is not None
        assert part.selective[0].images == images
        assert (part.abnormal is None) == ("normal" not in trained.classes)
    assert report.comparison is not None
    assert isinstance(report.shortcuts.border, Audit) == (trained.classes == FIVE)
    header = (trained.report / PREDICTIONS_FILE).read_text().splitlines()[0].split(",")
    columns = [f"{role}_{name}" for role in ("model", "baseline") for name in trained.classes]
    assert header[-len(columns) :] == columns
    page = (trained.report / PAGE_FILE).read_text()
    assert "Bacterial" not in page
    assert ("Pneumonia against normal" in page) == (trained.classes == TWO)
    assert ("no class is named normal" in page) == (trained.classes == FIVE)
    assert (trained.report / "abnormal_roc.png").exists() == (trained.classes == TWO)


def test_the_card_says_nothing_of_other_classes(trained: Trained) -> None:
    card = (trained.release / "README.md").read_text()
    assert f"chest radiograph as {', '.join(trained.classes)}." in card
    assert "viral pneumonia" not in card
    assert ("- pneumonia\n" in card) == (trained.classes == TWO)
    assert f"classes=[{','.join(trained.classes)}]" in card


def test_the_service_answers_with_the_classes(trained: Trained) -> None:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 40), np.uint8)).save(file, "PNG")
    settings = Settings(data_root=trained.layout.root, threads=1, poll_seconds=0.05)
    with TestClient(create_app(settings)) as client:
        deadline = time.monotonic() + 60
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < deadline, client.get("/ready").text
        upload = {"file": ("image.png", file.getvalue())}
        answer = client.post("/predict?cam=true", files=upload).json()
        assert tuple(answer["probabilities"]) == tuple(answer["cam"]) == trained.classes
        assert answer["label"] == trained.classes[answer["pred"]]
        for label in trained.classes:
            assert client.post(f"/explain?label={label}", files=upload).json()["label"] == label
        error = client.post("/explain?label=viral_pneumonia", files=upload).json()["error"]
        assert ", ".join(trained.classes) in error["message"]
        counted = f'cxr_predictions_total{{label="{answer["label"]}"}}'
        assert (counted in client.get("/metrics").text) == (answer["accepted"] is not False)
        assert client.get("/model").json()["model"]["classes"] == list(trained.classes)


def test_the_table_of_predictions_has_a_column_for_each_class(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(trained.layout.processed.glob("test/*/*.png"))
    with pytest.raises(SystemExit):
        cxr.main(["predict", str(image), "--bundle", str(trained.main)])
    header = capsys.readouterr().out.splitlines()[0]
    gate = ("accepted", "reasons", "repaired_label")
    assert header.split(",") == ["image", "label", *trained.classes, *gate, "model"]
