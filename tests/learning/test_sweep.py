import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import forking
import mlflow
import pandas as pd
import pytest
import tiny
from mlflow.tracking import MlflowClient

import cxr
from cxr_assets import sweep, training
from cxr_assets.experiment import Experiment, ExperimentError, compose
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.store import EXPERIMENT
from cxr_serving.model import store

LR = "model.lr"
OVERRIDES = ("data.synthetic_patients=8", "data.image_size=32", *tiny.NETWORKS[:2])


def test_a_sweep_is_every_combination_of_values():
    jobs = sweep.expand("demo", ["trainer.batch_size=4,8", "seed=range(2)"], OVERRIDES)
    assert [job.overrides for job in jobs] == [
        ("trainer.batch_size=4", "seed=0"), ("trainer.batch_size=4", "seed=1"),
        ("trainer.batch_size=8", "seed=0"), ("trainer.batch_size=8", "seed=1"),
    ]  # fmt: skip
    assert [job.experiment.trainer.batch_size for job in jobs] == [4, 4, 8, 8]
    assert [job.experiment.seed for job in jobs] == [0, 1, 0, 1]
    assert {job.experiment.data.synthetic_patients for job in jobs} == {8}


def test_the_command_line_has_the_last_word_on_preset_and_settings():
    (job,) = sweep.expand("demo", ["experiment=scratch", "data.folder=images"], ["seed=3"])
    assert (job.experiment.preset, job.experiment.seed) == ("scratch", 3)
    (job,) = sweep.expand("demo", ["seed=4"], ["seed=3"])
    assert job.experiment == compose("demo", ["seed=4"])


def test_lists_sweep_as_whole_values():
    jobs = sweep.expand("demo", ["model.depths=[1,1,1,1],[1,1,2,1]"])
    assert [job.experiment.model.depths for job in jobs] == [(1, 1, 1, 1), (1, 1, 2, 1)]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("trainer.max_epoch=3", "did you mean 'trainer.max_epochs'?"),
        ("experiment=scrach", "did you mean 'scratch'?"),
        ("trainer.max_epochs=1,0", "trainer.max_epochs: Input should be greater than 0"),
        ("seed", "missing EQUAL"),
        ("trainer.batch_size=interval(4,8)", "does not support"),
    ],
)
def test_settings_that_are_not_valid_are_rejected_before_any_training(override, problem):
    with pytest.raises(ExperimentError) as error:
        sweep.expand("demo", [override])
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["trainer.max_epoch=3"], "no setting named 'trainer.max_epoch'"),
        (["seed=0,1"], "these overrides make 2 jobs: train them all with -m"),
    ],
)
def test_the_command_line_rejects_in_one_line(arguments, problem, tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path / "data"))
    with pytest.raises(SystemExit) as stop:
        cxr.main(["train", *arguments])
    assert str(stop.value.code).startswith("error: ")
    assert problem in stop.value.code
    assert "\n" not in stop.value.code
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_options_may_stand_between_overrides(flag, monkeypatch):
    seen = []
    monkeypatch.setattr(sweep, "main", lambda *arguments: seen.append(arguments))
    for arguments in (["seed=0,1", flag, "+x=-1"], ["~x"]):
        with pytest.raises(SystemExit) as stop:
            cxr.main(["train", *arguments])
        assert stop.value.code == 0
    assert seen == [(["seed=0,1", "+x=-1"], True), (["~x"], False)]


def test_the_table_over_seeds_has_mean_and_spread():
    results = pd.DataFrame(
        {
            "overrides": ["a=1 seed=0", "a=1 seed=1", "a=2 seed=0", "a=2 seed=1"],
            "version": ["v", "v", "v", "failed"],
            "macro_f1": [0.5, 0.7, 0.9, None],
            "auroc": [0.8, 0.8, 0.9, None],
            "minutes": [1.0, 3.0, 1.0, None],
        }
    )
    one, two = sweep.over_seeds(results).to_dict("records")
    assert (one["overrides"], one["seeds"], two["overrides"], two["seeds"]) == ("a=1", 2, "a=2", 1)
    assert one["macro_f1"] == pytest.approx(0.6)
    assert one["macro_f1_std"] == pytest.approx(0.02**0.5)
    assert one["minutes"] == 2
    assert two["macro_f1"] == pytest.approx(0.9)


def test_a_later_run_of_the_winner_points_to_its_bundle(tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout, images=6)
    plan = make_plan(
        "convnext_model", compose("demo", [*OVERRIDES, "trainer.max_epochs=1"]), layout
    )
    fit(plan, lambda line: None)
    directory, published = export(plan, point=False)
    assert published
    assert store.read_pointer(plan.bundles) is None
    assert export(plan, point=False) == (directory, False)
    assert store.read_pointer(plan.bundles) is None
    assert export(plan) == (directory, False)
    assert store.latest(plan.bundles) == directory


@contextmanager
def full_disk() -> Iterator[None]:
    """No file grows, which a write sees as it sees a full disk; MLflow's store is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def sweeping(tmp_path, monkeypatch, capsys) -> Iterator[Callable[..., tuple[Layout, str, str]]]:
    """Sweeps over seeds, of which 0 meets a full disk and 1 an error that nobody foresaw."""
    layout = Layout(tmp_path / "data")
    monkeypatch.setenv("CXR_DATA_ROOT", str(layout.root))
    monkeypatch.setenv("CXR_OVERRIDES", " ".join(OVERRIDES))
    train = training.train

    def run(seeds: str, look: Callable[[], None]) -> tuple[Layout, str, str]:
        def made(experiment: Experiment, *more: Any) -> Path:
            look()
            if experiment.seed == 1:
                raise RuntimeError("no answer\nto seed 1")
            with full_disk() if experiment.seed == 0 else nullcontext():
                return train(experiment, *more)

        monkeypatch.setattr(training, "train", made)
        with pytest.raises(SystemExit) as stop:
            cxr.main(["train", "-m", f"seed={seeds}", "trainer.max_epochs=1"])
        assert stop.value.code == 1
        return (layout, *capsys.readouterr())

    before = mlflow.get_tracking_uri()
    yield run
    mlflow.set_tracking_uri(before)


def test_whatever_fails_a_job_is_its_row_and_the_table_is_there_after_each(sweeping, tmp_path):
    seen: list[int] = []

    def look() -> None:
        tables = list((tmp_path / "data" / "sweeps").glob("*"))
        seen.append(sum(len(pd.read_csv(path)) for path in tables))

    layout, shown, progress = sweeping("0,1,2", look)
    assert seen == [0, 1, 2]
    (table,) = layout.sweeps.iterdir()
    full, crashed, well = pd.read_csv(table).to_dict("records")
    assert [full["version"], crashed["version"]] == ["failed", "failed"]
    assert crashed["reason"] == "no answer to seed 1"
    assert full["reason"] in " ".join(progress.split())
    assert "Traceback" in progress, "nobody foresaw it, so that is where to look"
    assert [well["version"]] == store.versions(layout.models("convnext_model"))
    assert pd.isna(well["reason"])
    assert all(text in shown for text in ("no answer to seed 1", well["version"]))


def test_a_table_that_cannot_be_written_ends_no_sweep_and_its_rows_are_printed(sweeping, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sweeps").write_text("in the way")
    layout, shown, progress = sweeping("1,2", lambda: None)
    assert progress.count(f"{layout.sweeps}/") == progress.count("cannot be written: ") == 2
    assert "no answer to seed 1" in shown
    (version,) = store.versions(layout.models("convnext_model"))
    assert version in shown


def test_a_sweep_that_is_interrupted_is_resumed(tmp_path):
    """Of three jobs one ends, one diverges, and an interrupt comes in the midst of the third."""
    layout = Layout(tmp_path / "data")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def start(name: str) -> tuple[ForkServerProcess, Path]:
        (tmp_path / name).mkdir()
        process = forking.start(
            ["cxr", "train", "-m", f"{LR}=1e-3,1e20,2e-3", "trainer.max_epochs=20"],
            elsewhere,
            {
                **{key: value for key, value in os.environ.items() if not key.startswith("CXR_")},
                "CXR_DATA_ROOT": str(layout.root),
                "CXR_OVERRIDES": " ".join(OVERRIDES),
            },
            tmp_path / name,
        )
        return process, tmp_path / name

    process, shown = start("interrupted")
    deadline = time.monotonic() + 240
    while not (
        "\njob 3/3" in (progress := (shown / "err").read_text())
        and "\nepoch 1/20" in progress.partition("\njob 3/3")[2]
    ):
        assert process.exitcode is None
        assert time.monotonic() < deadline, progress
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    progress = (shown / "err").read_text()
    assert process.exitcode == 130, progress
    assert progress.endswith("\nstopped: the same command resumes from here\n")
    assert "Traceback" not in progress
    (stopped,) = (layout.root / "sweeps").glob("*.csv")
    assert pd.read_csv(stopped)["version"].str.endswith("failed").tolist() == [False, True]

    process, shown = start("resumed")
    process.join(240)
    table, progress = ((shown / name).read_text() for name in ("out", "err"))
    assert process.exitcode == 1, progress
    assert "Traceback" not in progress
    first, second, third = progress.split("job ")[1:]
    assert "reused " in first
    assert "\nepoch" not in first
    assert "error: the loss is not finite" in second
    assert "resuming from" in third
    assert "epoch 1/20" not in third

    (path,) = set((layout.root / "sweeps").glob("*.csv")) - {stopped}
    results = pd.read_csv(path)
    assert results["overrides"].str.split(" ").str[0].tolist() == [
        f"{LR}=0.001", f"{LR}=1e+20", f"{LR}=0.002",
    ]  # fmt: skip
    assert results["reason"].str.startswith("the loss is not finite").tolist()[1]
    assert results["reason"].isna().tolist() == [True, False, True]
    versions = results["version"].tolist()
    assert versions.pop(1) == "failed"
    assert sorted(versions) == store.versions(layout.models("convnext_model"))
    assert all(version in table for version in versions)
    assert results["macro_f1"].dropna().between(0, 1).all()
    assert results["epochs"].dropna().gt(1).all()
    assert store.read_pointer(layout.models("convnext_model")) is None, "nothing is served"

    client = MlflowClient(f"sqlite:///{layout.mlflow_database}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
    sweeps = [run for run in runs if run.info.run_name == "sweep"]
    assert [run.info.status for run in sweeps] == ["KILLED", "FINISHED"]
    trainings = [
        [
            (run.data.params[LR], run.info.status)
            for run in runs
            if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        ]
        for parent in sweeps
    ]
    assert trainings == [
        [("0.001", "FINISHED"), ("1e+20", "FAILED"), ("0.002", "KILLED")],
        [("1e+20", "FAILED"), ("0.002", "FINISHED")],
    ]
    assert not list(elsewhere.iterdir()), "the working directory is littered"

    settings = compose("demo", [*OVERRIDES, f"{LR}=2e-3", "trainer.max_epochs=20"])
    plan = make_plan("convnext_model", settings, layout)
    swept = plan.published()
    assert swept is not None
    fit(plan, lambda line: None, force=True)
    alone, published = export(plan)
    assert published
    weights = [store.verify(directory).files["model.safetensors"] for directory in (swept, alone)]
    assert weights[0] == weights[1], "trained alone and at one go, it would be another model"
