import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from dicoms import dicom
from PIL import Image
from reporting import Page, bundles

import cxr
from cxr_assets.evaluation.on_images import report_on_images
from cxr_assets.layout import Layout
from cxr_assets.radiographs import synthesis
from cxr_assets.radiographs.raw import RawDataError
from cxr_serving.model import store
from cxr_serving.model.report import Report, ReportError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images of thirty patients a class, as they come."""
    root = tmp_path_factory.mktemp("images")
    synthesis.make(root, 30, 0)
    return root


def test_any_bundle_on_any_folder_without_dagster(
    layout: Layout, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, baseline = bundles(layout)
    out = tmp_path / "out"
    given = {"bundle": main, "baseline": baseline, "data": images, "out": out}
    with pytest.raises(SystemExit) as end:
        cxr.main(["evaluate", *(f"--{name}={value}" for name, value in given.items())])
    assert not end.value.code
    assert f"report: {out / 'report.html'}" in capsys.readouterr().err
    metrics = Report.read(out)
    assert metrics.images == len(list((images / "test").rglob("*.*")))
    assert metrics.shortcuts.border.gain == pytest.approx(
        metrics.macro_f1 - metrics.shortcuts.border.macro_f1, abs=1e-6
    )
    assert metrics.comparison.macro_f1.interval


def test_a_table_is_evaluated_with_its_dicom_files_sites_and_what_is_skipped(
    layout: Layout, tmp_path: Path
) -> None:
    main, _ = bundles(layout)
    lines = ["path,label,patient,site"]
    for number, image in enumerate(sorted((layout.processed / "test" / "normal").iterdir())):
        file = tmp_path / f"{number}.dcm"
        with Image.open(image) as pixels:
            file.write_bytes(dicom(np.asarray(pixels)))
        label, site = ("normal", "east") if number % 2 else ("viral_pneumonia", "west")
        lines.append(f"{file.name},{label},p{number},{site}")
    lines.append("lost.png,normal,p99,east")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    metrics = Report.read(report_on_images(main, table, tmp_path / "out", None, lambda line: None))
    assert (metrics.images, metrics.patients) == (9, 9)
    assert metrics.images_from == "images of the table labels.csv"
    assert {row.subgroup for row in metrics.subgroups if row.group == "site"} == {"east", "west"}
    assert list(metrics.skipped) == ["lost.png"]
    assert not metrics.external
    assert metrics.dataset is None


def test_classes_that_a_folder_lacks_are_absent_and_broken_images_are_named(
    layout: Layout, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hospital" / "NORMAL"
    folder.mkdir(parents=True)
    for number, image in enumerate(sorted((images / "test" / "NORMAL").iterdir())):
        content = image.read_bytes()
        (folder / image.name).write_bytes(content if number else content[: len(content) // 2])
    main, _ = bundles(layout)
    out = report_on_images(main, folder.parent, tmp_path / "out", None, lambda line: None)
    metrics = Report.read(out)
    assert metrics.absent_classes == ("bacterial_pneumonia", "viral_pneumonia")
    assert metrics.classification_report.classes["viral_pneumonia"].recall is None
    assert metrics.abnormal is None
    assert metrics.baseline is None
    [(path, why)] = metrics.skipped.items()
    assert path.startswith("NORMAL/")
    assert why.startswith("corrupt: ")
    text = Page((out / "report.html").read_text()).text
    assert "neither evaluated nor counted in any mean" in " ".join(text.split())
    assert path in text


def test_unknown_patients_of_a_folder_are_counted_and_reported(
    layout: Layout, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hospital" / "NORMAL"
    folder.mkdir(parents=True)
    paths = sorted((images / "test" / "NORMAL").iterdir())
    for number, image in enumerate(paths):
        name = f"scan {number}.jpeg" if number < 2 else image.name
        (folder / name).write_bytes(image.read_bytes())
    main, _ = bundles(layout)
    out = report_on_images(main, folder.parent, tmp_path / "out", None, lambda line: None)
    metrics = Report.read(out)
    assert (metrics.unknown_patients, metrics.images) == (2, len(paths))
    text = " ".join(Page((out / "report.html").read_text()).text.split())
    assert "The patients of 2 of the evaluated images are unknown" in text
    assert "rule for release" not in text, "no release depends on this folder"


def test_what_is_no_report_is_not_replaced(layout: Layout, images: Path, tmp_path: Path) -> None:
    main, _ = bundles(layout)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ReportError, match="name a new or an empty directory"):
        report_on_images(main, images, tmp_path, None, lambda line: None)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_lies_beside_the_report_stays(layout: Layout, images: Path, tmp_path: Path) -> None:
    main, _ = bundles(layout)
    beside = tmp_path / "home" / ".report.old"
    leftover = tmp_path / "home" / ".report.123.partial"
    for directory in (beside, leftover):
        directory.mkdir(parents=True)
    report_on_images(main, images, tmp_path / "home" / "report", None, lambda line: None)
    assert beside.exists()
    assert not leftover.exists()


def test_a_folder_without_images_is_rejected_with_what_was_expected(
    layout: Layout, tmp_path: Path
) -> None:
    main, _ = bundles(layout)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RawDataError, match="Expected NORMAL/ and PNEUMONIA/"):
        report_on_images(main, tmp_path / "empty", tmp_path / "out", None, lambda line: None)


def tree(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def notes(place: Path) -> None:
    (place / "notes.txt").write_text("mine")


def edit(place: Path) -> None:
    (place / "metrics.json").write_text("{}")


@pytest.fixture
def folder(layout: Layout, tmp_path: Path) -> Path:
    """Images of a folder in the raw layout."""
    directory = tmp_path / "images"
    images = sorted(layout.processed.glob("test/normal/*.png"))
    for label, name in (("NORMAL", "IM-{}-0001.png"), ("PNEUMONIA", "person{}_virus_1.png")):
        (directory / label).mkdir(parents=True)
        for number in (1, 2):
            shutil.copyfile(images.pop(), directory / label / name.format(number))
    return directory


def evaluate_on(folder: Path, layout: Layout, out: Path) -> Path:
    main = store.latest(layout.models("convnext_model"))
    return report_on_images(main, folder, out, None, lambda line: None)


def test_an_evaluation_replaces_an_earlier_one_and_nothing_else(
    reported: Layout, folder: Path, tmp_path: Path
) -> None:
    out = evaluate_on(folder, reported, tmp_path / "my evaluation")
    assert evaluate_on(folder, reported, out) == out
    version = store.latest(reported.models("convnext_model"))
    release = shutil.copytree(version, reported.releases / version.name)
    (release / "metrics.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    notes(tmp_path / "notes")
    edited, extended = (shutil.copytree(out, tmp_path / name) for name in ("edited", "extended"))
    edit(edited)
    notes(extended)
    everything = tree(tmp_path)
    for place in (
        reported.reports,
        reported.reports / version.name,
        reported.releases / version.name,
        reported.processed,
        version,
        version / "evaluation",
        folder / "evaluation",
        tmp_path / "notes",
        tmp_path / "notes" / "notes.txt",
        edited,
        extended,
    ):
        with pytest.raises(ReportError, match="name a new or an empty directory with --out"):
            evaluate_on(folder, reported, place)
        assert tree(tmp_path) == everything


def test_labels_that_the_model_does_not_know_have_to_be_mapped(
    layout: Layout, images: Path, tmp_path: Path
) -> None:
    main, _ = bundles(layout)
    five = ("effusion", "fibrosis", "mass", "nodule", "tuberculosis")
    other = tiny.publish(layout, "dinov2_probe", tiny.dinov2(five), "d" * 64)
    out = tmp_path / "out"
    with pytest.raises(ReportError, match=f"has the classes {', '.join(five)}, not "):
        report_on_images(main, images, out, other, lambda line: None)
    two = tiny.publish(layout, "convnext_model", tiny.convnext(("normal", "pneumonia")), "d" * 64)
    known = r"labels bacterial_pneumonia, normal, viral_pneumonia, but .* are normal, pneumonia:"
    for labels in ({}, {"viral_pneumonia": "pneumonia"}):
        with pytest.raises(RawDataError, match=f"{known}.* --label bacterial_pneumonia=CLASS"):
            report_on_images(two, images, out, None, lambda line: None, labels)

    def ended(*labels: str) -> object:
        arguments = ["evaluate", f"--bundle={two}", f"--data={images}", f"--out={out}"]
        with pytest.raises(SystemExit) as end:
            cxr.main([*arguments, *(f"--label={label}" for label in labels)])
        return end.value.code

    assert ended("bacterial_pneumonia") == 2, "it has to be LABEL=CLASS"
    assert "normal, pneumonia" in str(ended("bacterial_pneumonia=pneumonia", "viral_pneumonia=tb"))
    assert not ended("bacterial_pneumonia=pneumonia", "viral_pneumonia=")
    report = Report.read(out)
    assert (report.classes, report.absent_classes) == (("normal", "pneumonia"), ())
    assert {why.split(":")[0] for why in report.skipped.values()} == {"excluded"}
