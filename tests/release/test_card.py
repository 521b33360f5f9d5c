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
from huggingface_hub import ModelCard
from PIL import Image
from releases import FOLDER, KAGGLE, OVERRIDES, SYNTHETIC, body
from tiny import CLASSES

from cxr_assets.evaluation.reports import latest_report
from cxr_assets.evaluation.wording import rejection, score, words
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import onnx
from cxr_assets.radiographs.dataset import DATASET_FILE, DatasetRecord
from cxr_assets.release.card import model_card
from cxr_assets.release.release import write_release
from cxr_serving.model import reference, store
from cxr_serving.model.bundle import ONNX_FILE, REFERENCE_FILE, BundleRecord
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.reference import Reference
from cxr_serving.model.report import Report


@pytest.fixture
def image() -> Image.Image:
    """Wider than the network's input, and higher, and not the same everywhere."""
    noise = np.random.default_rng(5).integers(0, 60, (90, 70), dtype=np.uint8)
    return Image.fromarray(noise + np.linspace(0, 190, 90, dtype=np.uint8)[:, None])


def expected(release: Path) -> dict[str, float]:
    """What the predictor answers to ``image.png`` in the working directory."""
    predictor = Predictor(release)
    pixels = predictor.preprocessing.decode(Path("image.png")).pixels
    probabilities = predictor.predict(pixels[None])[0]
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
    images = reference.read(source).images
    Reference(images, onnx.predict(source / ONNX_FILE, images)).write(source)
    record["files"] |= {
        name: sha256((source / name).read_bytes()).hexdigest()
        for name in (ONNX_FILE, REFERENCE_FILE)
    }
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
    assert json.loads(answer)["accepted"] is True, "the release serves with its gate"
    assert json.loads(answer)["probabilities"] == pytest.approx(expected(release), abs=1e-3)


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
    for item in (
        "CLAIM, 2024 update",
        "| 33 | Testing on external data | not done",
        "| 44 | Funding, and role of the funders | not reported",
        "TRIPOD+AI, 2024",
        "| 27c | Next steps | a test at other sites",
    ):
        assert item in text
    assert "chose nothing" not in text
    assert "cannot be found this way" in text
    assert "leakage cannot be excluded" not in text
    path = real.processed / DATASET_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unknown_patients": 4}))
    text = body(write_release(real, None, FOLDER))
    assert "patients of 4 images are unknown" in text
    assert "leakage cannot be excluded" in text


def test_the_card_says_how_robust_the_model_is(real: Layout) -> None:
    release = write_release(real, None, FOLDER)
    text, found = body(release), Report.read(release).robustness
    assert found is not None
    section = text[text.index("### Robustness") : text.index("### Calibration")]
    assert f"{found.images} validation images of {found.patients} patients" in section
    for name, row in found.scanners.items():
        drop = score(row.macro_f1.drop, row.macro_f1.interval)
        line = next(line for line in section.splitlines() if f"{words(name)}: " in line)
        assert drop in line
    assert "Robustness: simulated scanners" in text, "in a checklist"


def test_the_card_says_what_the_gate_rejects_and_what_it_is_not(real: Layout) -> None:
    release = write_release(real, None, FOLDER)
    text, found = body(release), Report.read(release).gate
    section = text[text.index("## Gate") : text.index("## Evaluation")]
    assert found is not None
    assert "a medical device" in section.split("What it is not:")[1]
    assert "An accepted image may be unreadable" in section
    assert f"it rejects {rejection(tiny.GATE.validation)}." in section
    lines = {re.sub(" +", " ", line) for line in section.splitlines()}
    total = found.total
    assert f"| test images | {total.images} | {total.rejected} | {rejection(total)} |" in lines
    row = found.altered["rotated_90"]
    turned = f"| altered or made: rotated 90 | {row.images} | {row.rejected} | {rejection(row)} |"
    assert turned in lines
    check = tiny.GATE.checks["not_chest"]
    assert any(
        line.startswith("| `not_chest` |") and f"| 0.5 | {rejection(check.validation)} |" in line
        for line in lines
    )
    assert "Gate: altered images" in text
    without = model_card(
        BundleRecord.read(store.latest(real.models("convnext_model"))),
        Report.read(latest_report(real)).model_copy(update={"gate": None}),
        DatasetRecord.read(real.processed),
        FOLDER,
        [],
        None,
    )
    assert "None: the model answers every image" in without.text


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
    assert "teacher" not in card.text.replace("base weights and the teacher, if any", "")
    assert "Mendeley" in card.text


@pytest.mark.parametrize(
    ("teacher", "licence"),
    [("facebook/dinov2-small@ed", "cc-by-4.0"), ("sha256:" + "a" * 64, "unknown")],
)
def test_the_teacher_is_named_and_its_terms_apply(real: Layout, teacher: str, licence: str) -> None:
    record = BundleRecord.read(store.latest(real.models("convnext_model")))
    card = model_card(
        record.model_copy(update={"pretrained": None, "teacher": teacher}),
        Report.read(latest_report(real)),
        DatasetRecord.read(real.processed),
        KAGGLE,
        [],
        None,
    )
    assert card.data.license == licence
    assert card.data.base_model is None
    assert f"a frozen DINOv2 (`{teacher}`)" in card.text
    assert "terms of the teacher's weights" in card.text
    assert "with a pretrained network as its teacher" in card.text


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
