"""The job ``retrain`` on the command line: twice, with pushes, with failures; in one workplace.

Starting a process takes longer than the work it does here, so a test checks all that one start can
show. What pushes is not forked: the client of the hub reads its environment as it is imported.
"""

import json
from collections.abc import Iterator

import dagster as dg
import pytest
from hub import Hub
from PIL import Image
from tiny import CLASSES
from transformers import AutoModelForImageClassification

from cxr_assets import decisions
from cxr_serving.model import bundle, store

REPO = "my-group/cxr"
TOKEN = "hf_" + "s3cret" * 6


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(TOKEN) as hub:
        yield hub


def pushing(hub: Hub, token: str = TOKEN) -> dict[str, str]:
    """Environment variables for a push."""
    return {
        "CXR_HF_REPO": REPO,
        "HF_TOKEN": token,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
    }


# Models of synthetic images are pushed only if forced. The probe's asset adds an MLflow run.
FORCE = json.dumps({"ops": {"hf_release": {"config": {"force": True}}}}, separators=(",", ":"))
PUSH = f"dinov2_probe,hf_release --config-json {FORCE}"


def release_metadata(workplace) -> dict:
    with dg.DagsterInstance.from_config(str(workplace.home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("hf_release"))
        return dict(event.asset_materialization.metadata)


def status(workplace) -> tuple[dg.DagsterRunStatus, str]:
    """Status of the newest run, in Dagster and in MLflow."""
    run = workplace.runs()[0]
    return run.status, workplace.mlflow_parent(run.run_id).info.status


FINISHED = (dg.DagsterRunStatus.SUCCESS, "FINISHED")
FAILED = (dg.DagsterRunStatus.FAILURE, "FAILED")


def test_one_command_leaves_dataset_models_report_and_release(trained):
    layout = trained.layout
    assert len(list(layout.processed.rglob("*.png"))) > 40
    release = layout.releases / store.read_pointer(layout.releases)
    assert AutoModelForImageClassification.from_pretrained(release).config.num_labels == 3
    metrics = json.loads((layout.reports / "metrics.json").read_text())
    for result in (metrics, metrics["baseline"]):
        assert set(result) >= {
            "classification_report", "confusion_matrix", "classes", "auroc_macro_ovr",
            "accuracy", "macro_f1",
        }  # fmt: skip
        assert result["classes"] == list(CLASSES)
        images = sum(sum(row) for row in result["confusion_matrix"])
        assert images == len(list((layout.processed / "test").rglob("*.png")))


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
    changes = metadata["metrics_report"]["changes_of_the_data"].value
    assert changes == metadata["processed_dataset"]["changes"].value == "This is the first dataset."
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


def test_mlflow_has_one_parent_and_one_child_per_model(trained):
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
        record = bundle.BundleRecord.read(store.latest(trained.layout.models(name)))
        assert (record.mlflow_run_id, record.dagster_run_id) == (child.info.run_id, run.run_id)


@pytest.mark.parametrize("step", ["raw_kaggle", "processed_dataset", "convnext_model"])
def test_progress_is_a_line_per_epoch(trained, step):
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


def test_plots_are_readable_images(trained):
    report = trained.layout.reports / store.read_pointer(trained.layout.reports)
    plots = sorted(report.glob("*.png"))
    assert plots
    for path in plots:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300


def test_the_summary_shows_both_models_and_the_next_steps(trained):
    finished = trained.command("cxr", "summary")
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((trained.layout.reports / "metrics.json").read_text())
    assert f"{metrics['macro_f1']:.3f}" in finished.stdout
    assert f"{metrics['baseline']['macro_f1']:.3f}" in finished.stdout
    for words in ("make dev", "make serve", "Not a medical device", "synthetic images"):
        assert words in " ".join(finished.stdout.split())


def test_a_second_run_repeats_nothing_and_pushes_no_synthetic_model(trained, hub):
    before = store.latest(trained.layout.models("convnext_model"))
    (trained.layout.releases / "latest.json").unlink()
    finished = trained.retrain(fresh=True, **pushing(hub))
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert store.latest(trained.layout.models("convnext_model")) == before
    for line in ("unchanged", f"convnext_model: reused {before.name}"):
        assert line in finished.stderr
    assert status(trained) == FINISHED
    with dg.DagsterInstance.from_config(str(trained.home)) as instance:
        for name, key, last in (
            ("processed_dataset", "changes", "run"),
            ("metrics_report", "changes_of_the_data", "report"),
        ):
            event = instance.get_latest_materialization_event(dg.AssetKey(name))
            said = event.asset_materialization.metadata[key].value
            assert said.startswith(f"No image has changed since the last {last}. ")

    assert hub.requests == [], "made from synthetic images, and not forced"
    metadata = release_metadata(trained)
    assert metadata["decision"].value == "held: it was made from synthetic images"
    assert metadata["hub"].value == "not pushed: held"
    assert store.read_pointer(trained.layout.releases) is None


def test_a_release_reaches_the_hub_and_the_token_stays_secret(trained, hub):
    finished = trained.materialize(PUSH, fresh=True, **pushing(hub))
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert status(trained) == FINISHED, "the steps of some assets have one run of MLflow, too"
    assert store.read_pointer(trained.layout.releases) in hub.repositories[REPO].tags
    release = trained.layout.releases / store.read_pointer(trained.layout.releases)
    stored = hub.repositories[REPO].files
    assert stored["model.safetensors"] == (release / "model.safetensors").read_bytes()
    assert stored["README.md"] == (release / "README.md").read_bytes()
    assert release_metadata(trained)["hub"].value.startswith(hub.url)
    assert TOKEN not in finished.stdout + finished.stderr
    for path in trained.root.rglob("*"):
        if path.is_file() and path.suffix in (".db", ".err", ".out", ".json", ".md", ""):
            assert TOKEN.encode() not in path.read_bytes(), path


def test_a_rejected_push_fails_the_run_and_leaves_the_release_whole(trained, hub):
    before = store.latest(trained.layout.releases)
    (trained.layout.releases / "latest.json").unlink()
    finished = trained.materialize(PUSH, fresh=True, **pushing(hub, "hf_" + "wrong" * 7))
    assert finished.returncode != 0
    assert "the token is not valid (401)" in finished.stderr
    assert status(trained) == FAILED
    store.verify(before)
    assert store.read_pointer(trained.layout.releases) is None
    store.write_pointer(trained.layout.releases, before.name)


def test_a_mistyped_setting_fails_the_run_and_the_nearest_name_is_suggested(trained):
    before = store.latest(trained.layout.models("convnext_model"))
    finished = trained.command(
        "dg", "launch", "--job", "retrain", CXR_OVERRIDES="trainer.max_epoch=3"
    )
    assert finished.returncode != 0
    assert trained.runs()[0].job_name == "retrain"
    assert "did you mean 'trainer.max_epochs'" in finished.stderr
    assert status(trained) == FAILED
    assert store.latest(trained.layout.models("convnext_model")) == before


def test_a_model_that_does_not_beat_the_probe_is_held_until_a_person_promotes_it(trained):
    released = store.read_pointer(trained.layout.releases)
    assert released is not None
    finished = trained.retrain("seed=3", "release.rule.margin=1")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert status(trained) == FINISHED
    held = store.latest(trained.layout.models("convnext_model")).name
    assert held != released
    assert store.read_pointer(trained.layout.releases) == released
    store.verify(trained.layout.releases / held)
    assert f"release {held} is held: beats_probe" in finished.stderr
    metadata = release_metadata(trained)
    assert metadata["decision"].value == "held: beats_probe"
    assert metadata["champion"].value == released
    assert metadata["beats_probe"].value.startswith("failed: Macro F1 less that of the probe")
    assert "decided  " + held in trained.command("cxr", "summary").stdout

    promoted = trained.command("cxr", "release", "promote", held, "--because", "read by two")
    assert promoted.returncode == 0, promoted.stderr
    assert f"{held} is promoted by " in promoted.stdout
    assert store.read_pointer(trained.layout.releases) == held
    again = trained.command("cxr", "release", "promote", held, "--because", "read by two")
    assert again.returncode == 1
    assert "released already" in again.stderr
    assert [one.decision for one in decisions.history(trained.layout)][-2:] == ["held", "promoted"]
