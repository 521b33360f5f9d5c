import json
import os
import re
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import net
import numpy as np
import pytest
import tiny
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from tiny import CLASSES
from transformers import AutoImageProcessor, AutoModelForImageClassification

from cxr_assets.evaluation.report import latest_report, write_report
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import onnx
from cxr_assets.radiographs import membership
from cxr_assets.radiographs.dataset import DATASET_FILE, DatasetRecord, manifest
from cxr_assets.release import release as release_module
from cxr_assets.release import rights
from cxr_assets.release.card import model_card
from cxr_assets.release.release import ReleaseError, withheld, write_release
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError, BundleRecord
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import METRICS_FILE, Report, ReportError

OVERRIDES = ("seed=3", f"data.image_size={tiny.SIZE}", *tiny.LIMITS)
SYNTHETIC = compose("demo", OVERRIDES)
FOLDER = compose("scratch", ["data.folder=/home/somebody/patients", *OVERRIDES])
KAGGLE = compose("full", OVERRIDES)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def body(release: Path) -> str:
    """The card without its metadata."""
    return ModelCard.load(release / "README.md").text.strip()


def test_a_release_is_a_bundle_that_serves_and_loads(reported: Layout) -> None:
    source = store.latest(reported.models("convnext_model"))
    release = write_release(reported, None, SYNTHETIC)
    assert release == reported.releases / source.name
    assert store.read_pointer(reported.releases) is None, "whoever has pushed it moves the pointer"
    original, released = BundleRecord.read(source), store.verify(release)
    assert released.model_copy(update={"files": original.files}) == original
    for name in original.files:
        assert (release / name).read_bytes() == (source / name).read_bytes()
    image = np.random.default_rng(1).integers(0, 256, (1, tiny.SIZE, tiny.SIZE), dtype=np.uint8)
    np.testing.assert_array_equal(
        Predictor(release).predict(image), Predictor(source).predict(image)
    )
    assert AutoModelForImageClassification.from_pretrained(release).config.id2label == dict(
        enumerate(CLASSES)
    )
    assert AutoImageProcessor.from_pretrained(release).size["height"] == tiny.SIZE


def test_holds_the_report(reported: Layout) -> None:
    report = latest_report(reported)
    release = write_release(reported, None, SYNTHETIC)
    pictures = [METRICS_FILE, *(path.name for path in report.glob("*.png"))]
    assert len(pictures) == 13
    for name in pictures:
        assert (release / name).read_bytes() == (report / name).read_bytes()
    shown = re.findall(r"!\[.*?\]\((.+?)\)", body(release))
    assert set(shown) == {*pictures, "samples.png"} - {METRICS_FILE}


@pytest.fixture
def image() -> Image.Image:
    """Wider than the network's input, and higher, and not the same everywhere."""
    noise = np.random.default_rng(5).integers(0, 60, (90, 70), dtype=np.uint8)
    return Image.fromarray(noise + np.linspace(0, 190, 90, dtype=np.uint8)[:, None])


def expected(release: Path) -> dict[str, float]:
    """What the predictor answers to ``image.png`` in the working directory."""
    predictor = Predictor(release)
    probabilities = predictor.predict(predictor.preprocessing.decode(Path("image.png"))[None])[0]
    assert max(probabilities) < 0.999, "a saturated answer would compare nothing"
    return dict(zip(CLASSES, map(float, probabilities), strict=True))


@pytest.mark.parametrize("snippet", ["pipeline", "AutoModel", "onnxruntime"])
def test_the_snippets_of_the_card_answer_like_the_predictor(
    reported: Layout,
    image: Image.Image,
    snippet: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release = write_release(reported, None, SYNTHETIC)
    snippets = re.findall(r"```python\n(.*?)```", body(release), re.DOTALL)
    assert len(snippets) == 3
    [code] = [text for text in snippets if snippet in text]
    monkeypatch.chdir(release)
    image.save("image.png")
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    answered = {name: float(value) for name, value in map(str.split, lines)}
    Path("image.png").rename(reported.root / "image.png")
    monkeypatch.chdir(reported.root)
    assert answered == pytest.approx(expected(release), abs=1e-3)


def test_the_snippet_of_a_model_with_flip_averaging_averages_too(
    reported: Layout,
    image: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = store.latest(reported.models("convnext_model"))
    path = source / "bundle.json"
    record = json.loads(path.read_text()) | {"flip_averaging": True}
    onnx.write(source, flip_averaging=True)
    record["files"]["model.onnx"] = sha256((source / "model.onnx").read_bytes()).hexdigest()
    path.write_text(json.dumps(record))
    release = write_release(reported, None, SYNTHETIC)
    stepwise, _ = re.findall(r"```python\n(.*?)```", body(release), re.DOTALL)
    monkeypatch.chdir(release)
    image.save("image.png")
    exec(stepwise, {})
    lines = capsys.readouterr().out.splitlines()
    Path("image.png").rename(reported.root / "image.png")
    monkeypatch.chdir(reported.root)
    answered = {name: float(value) for name, value in map(str.split, lines)}
    assert answered == pytest.approx(expected(release), abs=1e-3)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_service_answers_as_the_card_says(
    reported: Layout, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the release, with what the hub's client leaves in it."""
    release = write_release(reported, None, SYNTHETIC)
    [snippet] = re.findall(r"```bash\n(echo.*?)```", body(release), re.DOTALL)
    place = reported.root / "checkout"
    copy = shutil.copytree(release, place / "data" / "releases" / release.name)
    (copy / ".cache" / "huggingface").mkdir(parents=True)
    (copy / ".cache" / "huggingface" / ".gitignore").write_text("*")
    (copy / ".gitattributes").write_text("")
    monkeypatch.chdir(place)
    image.save("image.png")
    port = net.free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CXR_")}
    with subprocess.Popen(
        ["bash", "-e", "-c", snippet.replace("localhost:8000", f"127.0.0.1:{port}") + "echo"],
        env={
            **environment,
            "CXR_PORT": str(port),
            "CXR_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as shell:
        assert shell.stdout is not None
        answer = shell.stdout.readline()
        os.killpg(shell.pid, signal.SIGTERM)
        log = shell.communicate(timeout=30)[1]
    assert answer, log.decode()
    assert json.loads(answer)["probabilities"] == pytest.approx(expected(release), abs=1e-3)


def test_the_split_of_the_bundle_goes_along(real: Layout) -> None:
    release = write_release(real, None, FOLDER)
    assert "split.csv" in BundleRecord.read(release).files
    split = membership.read(release)
    assert split.equals(membership.read(store.latest(real.models("convnext_model"))))
    assert len(split) == len(manifest(real.processed).query("kept")) == 18
    pictures = {path.name for path in latest_report(real).glob("*.png")}
    assert {path.name for path in release.glob("*.png")} == pictures


@pytest.mark.parametrize(
    ("experiment", "named", "licence"),
    [(SYNTHETIC, 1, "Apache-2.0"), (KAGGLE, 2, "CC-BY-NC-4.0"), (FOLDER, 1, None)],
)
def test_how_to_cite(
    reported: Layout, experiment: Experiment, named: int, licence: str | None
) -> None:
    source = experiment.data.source
    record = BundleRecord.read(store.latest(reported.models("convnext_model"))).model_copy(
        update={
            "synthetic": source == "synthetic",
            "pretrained": experiment.model.pretrained and f"{experiment.model.pretrained}@1",
        }
    )
    text = rights.citation(record, [source], "A title: of it", "my-group/cxr")
    cited = yaml.safe_load(text)
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == "A title: of it"
    assert cited["authors"] == [{"name": "my-group"}]
    assert (cited["version"], cited["date-released"]) == (record.version, record.created_at.date())
    assert cited.get("license") == licence
    assert len(cited["references"]) == named
    assert all({"type", "title", "authors"} <= set(work) for work in cited["references"])


def test_the_licence_lies_beside_the_card(reported: Layout, real: Layout) -> None:
    text = (write_release(reported, None, SYNTHETIC) / "LICENSE.md").read_text()
    assert "Apache-2.0" in text
    assert "Not a medical device" in text
    assert (
        "Settle it before publishing"
        in (write_release(real, None, FOLDER) / "LICENSE.md").read_text()
    )


def test_a_report_that_was_judged_by_other_limits_is_not_released(reported: Layout) -> None:
    experiment = compose("demo", [*OVERRIDES, "release.rule.class_loss=0.1"])
    with pytest.raises(ReleaseError, match="materialise metrics_report again"):
        write_release(reported, None, experiment)
    assert not reported.releases.exists()


def test_what_is_withheld_unless_forced(reported: Layout, real: Layout) -> None:
    synthetic, random = (
        BundleRecord.read(store.latest(layout.models("convnext_model")))
        for layout in (reported, real)
    )
    assert "synthetic images" in str(withheld(synthetic))
    assert "random weights" in str(withheld(random))
    assert withheld(random.model_copy(update={"pretrained": "facebook/convnextv2@1"})) is None


def test_the_metadata_of_the_card_are_the_measured_ones(reported: Layout) -> None:
    release = write_release(reported, "my-group/cxr", SYNTHETIC)
    data = ModelCard.load(release / "README.md").data
    metrics = Report.read(release)
    assert data.pipeline_tag == "image-classification"
    assert data.library_name == "transformers"
    assert data.model_name == "cxr"
    assert data.license == "apache-2.0"
    measured = {result.metric_type: result.metric_value for result in data.eval_results}
    assert measured == {
        "f1": metrics.macro_f1,
        "accuracy": metrics.accuracy,
        "roc_auc": metrics.auroc_macro_ovr,
    }
    assert {result.dataset_revision for result in data.eval_results} == {metrics.data_version}
    text = body(release)
    for part in metrics.models:
        for key in ("macro_f1", "accuracy", "auroc_macro_ovr"):
            assert f"{getattr(part, key):.3f}" in text
    assert "--local-dir" in text
    assert "my-group/cxr" in text


@pytest.mark.parametrize(
    ("joules", "sentence"), [(None, "could not be measured"), (5432.1, "used 5.4 kJ")]
)
def test_energy_is_stated_where_it_was_measured(
    reported: Layout, joules: float | None, sentence: str
) -> None:
    metrics = Report.read(latest_report(reported))
    assert metrics.training_joules is None
    card = model_card(
        BundleRecord.read(store.latest(reported.models("convnext_model"))),
        metrics.model_copy(update={"training_joules": joules}),
        DatasetRecord.read(reported.processed),
        SYNTHETIC,
        [],
        None,
    )
    assert sentence in card.text


def test_the_card_begins_with_synthetic_images(reported: Layout) -> None:
    release = write_release(reported, None, SYNTHETIC)
    first, *_ = body(release).splitlines()
    assert "synthetic images" in first
    assert "never seen a radiograph of a patient" in first
    assert "Not a medical device" in body(release)
    assert (release / "samples.png").exists()


def test_the_card_says_what_was_checked_and_what_the_test_split_decided(real: Layout) -> None:
    text = body(write_release(real, None, FOLDER))
    assert "the clauses of the change protocol are judged there" in text
    assert "This version fulfils every clause." in text
    for clause in Report.read(latest_report(real)).clauses:
        assert clause.text in text
    assert "there is no earlier release to compare with" in text
    for item in ("| 44 | Funding | not reported", "| 27c | Next steps | a test at other sites"):
        assert item in text
    assert "chose nothing" not in text
    assert "cannot be found this way" in text
    assert "leakage cannot be excluded" not in text
    path = real.processed / DATASET_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unknown_patients": 4}))
    text = body(write_release(real, None, FOLDER))
    assert "patients of 4 images are unknown" in text
    assert "leakage cannot be excluded" in text


def test_what_shows_a_patient_in_two_splits_is_no_release(real: Layout) -> None:
    image = (real.processed / "test/normal/image-0.png").read_bytes()
    (real.processed / "train/normal/image-0.png").write_bytes(image)
    with pytest.raises(ReleaseError, match=r"image-0\.png and .*materialise raw_kaggle"):
        write_release(real, None, FOLDER)


def test_a_release_holds_no_real_images(real: Layout) -> None:
    release = write_release(real, None, FOLDER)
    text = body(release)
    assert "random weights" in text.splitlines()[0]
    assert "Not a medical device" in text
    assert "This release holds no radiograph" in text
    assert not (release / "samples.png").exists()
    assert "synthetic" not in text
    assert ModelCard.load(release / "README.md").data.license == "unknown"
    assert not any(b"somebody" in content for content in contents(release).values())


@pytest.mark.parametrize(
    ("pretrained", "licence", "base"),
    [
        ("facebook/convnextv2-tiny-22k-224@9c", "cc-by-nc-4.0", "facebook/convnextv2-tiny-22k-224"),
        ("my-group/convnextv2@main", "unknown", "my-group/convnextv2"),
        ("sha256:" + "a" * 64, "unknown", None),
        (None, "cc-by-4.0", None),
    ],
)
def test_the_terms_of_images_and_base_weights_apply(
    real: Layout, pretrained: str | None, licence: str, base: str | None
) -> None:
    record = BundleRecord.read(store.latest(real.models("convnext_model")))
    card = model_card(
        record.model_copy(update={"pretrained": pretrained}),
        Report.read(latest_report(real)),
        DatasetRecord.read(real.processed),
        KAGGLE,
        [],
        None,
    )
    assert card.data.license == licence
    assert card.data.base_model == base
    assert (pretrained or "random weights") in card.text
    assert "Mendeley" in card.text


def test_the_command_of_the_card_composes_the_same_experiment(real: Layout) -> None:
    experiment = compose(
        "scratch",
        [
            "data.folder=/home/somebody/patients",
            "model=convnextv2_demo",
            "model.lr=0.002",
            "trainer.augmentation.affine=0",
            *OVERRIDES,
        ],
    )
    text = body(write_release(real, None, experiment))
    [preset] = re.findall(r"CXR_EXPERIMENT=(\w+)", text)
    [overrides] = re.findall(r'CXR_OVERRIDES="(.*?)"', text)
    again = compose(preset, overrides.split())
    local = {"data": again.data.model_copy(update={"folder": experiment.data.folder})}
    assert again.model_copy(update=local) == experiment


def test_the_same_inputs_give_the_same_bytes(reported: Layout) -> None:
    first = contents(write_release(reported, None, SYNTHETIC))
    release = write_release(reported, None, SYNTHETIC)
    assert contents(release) == first
    assert [path.name for path in reported.releases.iterdir()] == [release.name]


def test_a_week_in_which_nothing_changed_gives_the_same_release(reported: Layout) -> None:
    release = write_release(reported, None, SYNTHETIC)
    first = contents(release)
    models = [store.latest(reported.models(a)) for a in ("convnext_model", "dinov2_probe")]
    write_report(reported, *models, rule=SYNTHETIC.release.rule)
    assert write_release(reported, None, SYNTHETIC) == release
    assert contents(release) == first


def test_a_failure_while_writing_leaves_the_old_release(
    reported: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_release(reported, None, SYNTHETIC)
    before = contents(release)

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release_module, "model_card", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        write_release(reported, None, SYNTHETIC)
    assert contents(release) == before
    assert not list(reported.releases.glob(".*"))


def test_a_bundle_that_was_altered_is_not_released(reported: Layout) -> None:
    weights = store.latest(reported.models("convnext_model")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"model\.safetensors does not match"):
        write_release(reported, None, SYNTHETIC)
    assert not reported.releases.exists()


def test_the_released_bundle_is_the_reported_one_not_the_newest(reported: Layout) -> None:
    evaluated = store.latest(reported.models("convnext_model"))
    tiny.publish(reported, "convnext_model", tiny.convnext(), "e" * 64)
    assert write_release(reported, None, SYNTHETIC).name == evaluated.name


@pytest.mark.parametrize(
    ("experiment", "named"),
    [
        (compose("demo", OVERRIDES[1:]), "seed: 3, not 0"),
        (compose("demo", ["seed=3", *tiny.LIMITS]), "data.image_size: 32, not 64"),
        (FOLDER, "synthetic images: True, not False"),
    ],
)
def test_an_experiment_that_did_not_make_the_bundle_is_rejected(
    reported: Layout, experiment: Experiment, named: str
) -> None:
    with pytest.raises(ReleaseError, match=re.escape(named)):
        write_release(reported, None, experiment)


def test_a_dataset_that_changed_since_is_rejected(reported: Layout) -> None:
    shutil.rmtree(reported.processed)
    tiny.processed(reported, synthetic=False)
    with pytest.raises(ReleaseError, match="materialise convnext_model and metrics_report again"):
        write_release(reported, None, SYNTHETIC)


def test_there_is_no_release_without_a_report(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="materialise metrics_report first"):
        write_release(Layout(tmp_path), None, SYNTHETIC)


def test_a_second_report_moves_into_the_release(reported: Layout) -> None:
    release = write_release(reported, None, SYNTHETIC)
    main = store.latest(reported.models("convnext_model"))
    write_report(reported, main, main, rule=SYNTHETIC.release.rule)
    assert write_release(reported, None, SYNTHETIC) == release
    metrics = Report.read(release)
    assert [model.model.asset for model in metrics.models] == ["convnext_model"] * 2
    store.verify(release)
