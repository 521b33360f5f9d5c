import json

import dagster as dg
import pytest
from PIL import Image
from transformers import AutoModelForImageClassification

from cxr_assets.radiographs.naming import CLASSES
from cxr_serving import bundle


def test_one_command_leaves_dataset_models_report_and_release(trained):
    layout = trained.layout
    assert len(list(layout.processed.rglob("*.png"))) > 40
    release = layout.releases / bundle.read_pointer(layout.releases)
    assert AutoModelForImageClassification.from_pretrained(release).config.num_labels == 3
    metrics = json.loads((layout.reports / "metrics.json").read_text())
    for result in (metrics, metrics["baseline"]):
        assert set(result) >= {
            "classification_report", "confusion_matrix", "classes", "auroc_macro_ovr",
            "accuracy", "macro_f1",
        }  # fmt: skip
        assert result["classes"] == list(CLASSES)
        films = sum(sum(row) for row in result["confusion_matrix"])
        assert films == len(list((layout.processed / "test").rglob("*.png")))


def test_the_run_is_on_record_for_the_ui(trained):
    (run,) = trained.runs()
    assert (run.job_name, run.status) == ("retrain", dg.DagsterRunStatus.SUCCESS)


def test_metadata_shows_counts_and_pictures(trained):
    with dg.DagsterInstance.from_config(str(trained.home)) as instance:
        metadata = {
            name: instance.get_latest_materialization_event(
                dg.AssetKey(name)
            ).asset_materialization.metadata
            for name in (
                "raw_kaggle", "processed_dataset", "convnext_model", "dinov2_probe",
                "metrics_report", "hf_release",
            )
        }  # fmt: skip
    picture = "![](data:image/png;base64,"
    assert metadata["processed_dataset"]["samples"].value.startswith(picture)
    for model in ("convnext_model", "dinov2_probe"):
        assert metadata[model]["curves"].value.startswith(picture)
        assert metadata[model]["outcome"].value == "published"
        assert metadata[model]["mlflow_run_id"].value != "none"
    pictures = [
        value for value in metadata["metrics_report"].values() if picture in str(value.value)
    ]
    assert len(pictures) >= 4
    assert "normal" in metadata["raw_kaggle"]["counts"].value
    assert metadata["hf_release"]["hub"].value == "not pushed: CXR_HF_REPO is not set"


def test_mlflow_has_one_parent_and_one_child_a_model(trained):
    (run,) = trained.runs()
    parent = trained.mlflow_parent(run.run_id)
    assert parent.info.status == "FINISHED"
    assert "test_macro_f1" in parent.data.metrics
    children = {
        child.info.run_name: child
        for child in trained.mlflow_runs()
        if child.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert set(children) == {"convnext_model", "dinov2_probe"}
    assert len(trained.mlflow_runs()) == 3
    for name, child in children.items():
        assert child.info.status == "FINISHED"
        assert child.data.params["seed"] == "0"
        assert "val_macro_f1" in child.data.metrics
        record = bundle.BundleRecord.read(bundle.latest(trained.layout.models(name)))
        assert (record.mlflow_run_id, record.dagster_run_id) == (child.info.run_id, run.run_id)


@pytest.mark.parametrize("step", ["raw_kaggle", "processed_dataset", "convnext_model"])
def test_progress_is_told_a_line_an_epoch_not_a_flood(trained, step):
    (run,) = trained.runs()
    with dg.DagsterInstance.from_config(str(trained.home)) as instance:
        lines = [
            entry.user_message
            for entry in instance.all_logs(run.run_id)
            if entry.dagster_event is None and (entry.step_key or "").startswith(step)
        ]
    assert 1 <= len(lines) < 12
    if step == "convnext_model":
        assert [line[:9] for line in lines if line.startswith("epoch")] == [
            "epoch 1/2",
            "epoch 2/2",
        ]


def test_again_nothing_is_repeated(trained, new_workplace):
    before = bundle.latest(trained.layout.models("convnext_model"))
    finished = trained.retrain()
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert bundle.latest(trained.layout.models("convnext_model")) == before
    for line in ("unchanged", f"convnext_model: reused {before.name}"):
        assert line in finished.stderr
    newest = trained.runs()[0]
    assert trained.mlflow_parent(newest.run_id).info.status == "FINISHED"


def test_summary_tells_both_models_and_what_to_do_next(trained):
    finished = trained.command("python", "-m", "cxr_assets.summary")
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((trained.layout.reports / "metrics.json").read_text())
    assert f"{metrics['macro_f1']:.3f}" in finished.stdout
    assert f"{metrics['baseline']['macro_f1']:.3f}" in finished.stdout
    for words in ("make dev", "make serve", "not a medical device", "phantoms"):
        assert words in finished.stdout


def test_figures_are_readable_images(trained):
    report = trained.layout.reports / bundle.read_pointer(trained.layout.reports)
    figures = sorted(report.glob("*.png"))
    assert figures
    for path in figures:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300
