import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from reporting import Page
from tiny import CLASSES

from cxr_assets.evaluation.audit import COLUMNS
from cxr_assets.evaluation.removal import remove_absent
from cxr_assets.evaluation.report import write_report
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import corrections
from cxr_assets.radiographs.dataset import MANIFEST_FILE, manifest
from cxr_assets.radiographs.labels import Words
from cxr_assets.release.release import write_release
from cxr_serving.model.report import LabelAudit, NoAudit, Report

EXPERIMENT = compose("demo", ["seed=3", f"data.image_size={tiny.SIZE}", *tiny.LIMITS])
# Files with another class than they show.
FLIPPED = {
    "train/normal/image-3.png": "viral_pneumonia",
    "val/viral_pneumonia/image-5.png": "normal",
    "train/bacterial_pneumonia/image-7.png": "normal",
}
COPIED, COPY = "train/normal/image-8.png", "train/normal/image-9.png"
STRANGE = "test/viral_pneumonia/image-1.png"


def draw(label: str, rng: np.random.Generator) -> Image.Image:
    """Bright on the left, in the middle or on the right, by class, with noise."""
    pixels = rng.integers(0, 80, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
    left = 11 * CLASSES.index(label)
    pixels[:, left : left + 10] += 140
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A report on images with planted wrong labels, a near duplicate and an outlier."""
    layout = Layout(tmp_path_factory.mktemp("audited"))
    torch.manual_seed(0)
    data = tiny.processed(layout, images=20, test_images=3)
    rng = np.random.default_rng(0)
    rows = pd.read_parquet(layout.processed / MANIFEST_FILE)
    for file, label in zip(rows["file"], rows["class"], strict=True):
        draw(label, rng).save(layout.processed / file)
    with Image.open(layout.processed / COPIED) as image:
        image.point(lambda level: level + 9).save(layout.processed / COPY)
    noise = rng.integers(0, 2, (tiny.SIZE, tiny.SIZE), dtype=np.uint8) * 255
    Image.fromarray(noise).save(layout.processed / STRANGE)
    rows["class"] = rows["file"].map(FLIPPED).fillna(rows["class"])
    rows.to_parquet(layout.processed / MANIFEST_FILE)
    main, probe = (
        tiny.publish(layout, asset, model, data.data_version, gate=gate)
        for asset, model, gate in (
            ("convnext_model", tiny.convnext(), tiny.gate()),
            ("dinov2_probe", tiny.dinov2(), None),
        )
    )
    lines: list[str] = []
    write_report(layout, main, probe, lines.append, EXPERIMENT.release.rule)
    (layout.root / "lines").write_text("\n".join(lines))
    return layout


@pytest.fixture(scope="module")
def report(layout: Layout) -> Path:
    [directory] = [path for path in layout.reports.iterdir() if path.is_dir()]
    return directory


@pytest.fixture(scope="module")
def table(report: Path) -> pd.DataFrame:
    return pd.read_csv(report / "label_audit.csv", keep_default_na=False)


def test_planted_wrong_labels_come_first_with_the_right_suggestion(table: pd.DataFrame) -> None:
    learned = table[(table["split"] != "test") & table["issue"].str.contains("label")]
    first = learned.head(len(FLIPPED)).set_index("path")
    assert set(first.index) == set(FLIPPED)
    for file, label in FLIPPED.items():
        assert first.loc[file, "given"] == label
        assert first.loc[file, "suggested"] == file.split("/")[1]
    assert learned["score"].is_monotonic_decreasing


def test_a_near_duplicate_and_an_outlier_are_found(table: pd.DataFrame) -> None:
    issues = table.set_index("path")["issue"]
    pairs = table.set_index("path")["other"]
    assert "duplicate" in issues[COPIED]
    assert (pairs[COPIED], pairs[COPY]) == (COPY, COPIED)
    assert "outlier" in issues[STRANGE]


def test_what_the_gate_rejects_is_listed_of_every_split(
    layout: Layout, table: pd.DataFrame, report: Path
) -> None:
    rejected = table[table["issue"].str.contains("gate")]
    images = manifest(layout.processed)
    assert set(rejected["path"]) == set(images["file"][images["colour"] > 0])
    assert set(rejected["split"]) == {"train", "val", "test"}
    assert (rejected["reasons"] == "colour").all()
    assert (table["reasons"][~table["issue"].str.contains("gate")] == "").all()
    assert (table["score"][table["issue"] == "gate"] == 1).all()
    section = (report / "report.html").read_text().split("<h3>Rejected by the gate</h3>")[1]
    assert section.count("colour). synthetic: ") == 12


def test_the_table_is_one_of_corrections(table: pd.DataFrame) -> None:
    assert list(table.columns) == COLUMNS
    assert {"source", "path", "label"} <= set(table.columns), "what a correction consists of"
    # Of two rows of one image, the later one would undo the correction in the other.
    assert not table.duplicated(["source", "path"]).any()
    assert (table["label"] == table["given"]).all(), "unless it is edited, it changes nothing"
    assert table["label"].isin(CLASSES).all()
    assert table["score"].between(0, 1).all()


def test_edited_it_corrects_what_was_edited_and_nothing_else(
    layout: Layout, report: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    rows = manifest(layout.processed).rename(columns={"class": "label"})
    before = rows.assign(problem=None)
    file, given = next(iter(FLIPPED.items()))
    right = file.split("/")[1]
    table.assign(label=table["label"].mask(table["path"] == file, right)).to_csv(
        tmp_path / "corrections.csv", index=False
    )
    after = before.copy()
    words = {"synthetic": Words({}, CLASSES)}
    roots = {"synthetic": layout.processed}
    done = corrections.apply(tmp_path / "corrections.csv", after, words, roots, lambda line: None)
    assert (done.images, done.unmatched) == (1, ())
    changed = after[after["label"] != before["label"]]
    assert changed[["path", "label"]].to_numpy().tolist() == [[file, right]]
    assert given != right


def test_the_report_has_the_numbers_alone(
    layout: Layout, report: Path, table: pd.DataFrame
) -> None:
    summary = Report.read(report).label_audit
    assert isinstance(summary, LabelAudit)
    assert summary.images == 3 * (20 + 20 + 3)
    for issue, counts in summary.counts.items():
        rows = table[table["issue"].str.contains(issue)]
        assert counts == {label: int((rows["given"] == label).sum()) for label in CLASSES}
    assert "image-" not in json.dumps(summary.model_dump())
    doubtful = sum(summary.counts["label"].values())
    assert 0.5 < summary.agreement < 1
    assert (
        f"label audit: of 129 images, {doubtful} have a label in doubt"
        in (layout.root / "lines").read_text()
    )


def test_the_page_shows_the_images_with_both_labels(report: Path) -> None:
    html = (report / "report.html").read_text()
    section = html[html.index("<h2>Label audit</h2>") : html.index("<h2>Training and provenance")]
    text = " ".join(Page(section).text.split())
    for file, label in FLIPPED.items():
        shown, truth = (name.replace("_", " ") for name in (label, file.split("/")[1]))
        assert re.search(
            rf"{shown}, rather {truth} \(\w+, score \d\.\d\d\)\. synthetic: {file}", text
        )
    assert "label_audit.csv" in text
    assert "data.corrections" in text
    figures = section.count("<figure")
    pictures = [source for source in Page(section).sources if source.startswith("data:image/png")]
    [duplicates] = re.findall("<h3>Near duplicates</h3>(.*?)<h3>", section, re.DOTALL)
    assert len(pictures) == figures + duplicates.count("<figure")


def test_nothing_of_it_is_released(layout: Layout) -> None:
    release = write_release(layout, None, EXPERIMENT)
    assert not list(release.rglob("*audit*"))
    for path in release.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".md", ".csv", ".cff", ".txt"):
            assert not re.search(r"image-\d", path.read_text())


def test_an_image_that_leaves_the_dataset_leaves_the_audit(
    layout: Layout, report: Path, table: pd.DataFrame
) -> None:
    path, record = layout.processed / "manifest.parquet", layout.processed / "dataset.json"
    said = record.read_text()
    images, before = pd.read_parquet(path), report / "label_audit.csv"
    gone = table["sha256"].iloc[0]
    content, page = before.read_bytes(), (report / "report.html").read_bytes()
    assert gone.encode() in page
    try:
        images[images["sha256"] != gone].to_parquet(path)
        record.write_text(json.dumps(json.loads(said) | {"synthetic": False}))
        remove_absent(layout)
        assert gone not in (report / "report.html").read_text()
        left = pd.read_csv(before)
        assert gone not in {*left["sha256"], *left["other_sha256"]}
        assert len(left) >= len(table) - 2, "itself, and its duplicate if it has one"
    finally:
        images.to_parquet(path)
        record.write_text(said)
        before.write_bytes(content)
        (report / "report.html").write_bytes(page)


def test_too_few_patients_are_a_reason_not_to_audit(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    data = tiny.processed(layout, images=2, test_images=2)
    main, probe = (
        tiny.publish(layout, asset, model, data.data_version)
        for asset, model in (("convnext_model", tiny.convnext()), ("dinov2_probe", tiny.dinov2()))
    )
    directory = write_report(layout, main, probe)
    summary = Report.read(directory).label_audit
    assert isinstance(summary, NoAudit)
    assert not (directory / "label_audit.csv").exists()
    text = " ".join(Page((directory / "report.html").read_text()).text.split())
    assert f"Labels not audited: {summary.reason}." in text
    assert Report.read(directory).gate is None
    assert "convnext_model has no gate: it answers every image" in text
    assert "rejected" not in pd.read_csv(directory / "predictions.csv").columns
