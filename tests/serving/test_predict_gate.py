"""What ``cxr predict`` says of images that the gate rejects."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

import cxr
from cxr_serving.model.bundle import GATE_FILE
from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path, image: bytes, rotated: bytes, coloured: bytes) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "accepted.jpeg").write_bytes(image)
    (folder / "coloured.png").write_bytes(coloured)
    (folder / "rotated.png").write_bytes(rotated)
    return folder


def table(images: Path, bundle: Path, out: Path) -> list[dict[str, str]]:
    with pytest.raises(SystemExit) as ended:
        cxr.main(["predict", str(images), "--bundle", str(bundle), "--csv", str(out)])
    assert not ended.value.code, ended.value.code
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_row_says_what_the_gate_says_and_how_the_image_is_read_when_repaired(
    images: Path, tmp_path: Path, publish_bundle: PublishBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = publish_bundle(tmp_path, seed=1)
    rows = table(images, bundle, tmp_path / "out.csv")
    assert [(row["accepted"], row["reasons"]) for row in rows] == [
        ("true", ""),
        ("false", "colour"),
        ("false", "rotated_90"),
    ]
    accepted, coloured, rotated = rows
    assert (accepted["repaired_label"], coloured["repaired_label"]) == ("", "")
    assert rotated["repaired_label"] == accepted["label"]
    predictor = Predictor(bundle)
    pixels = predictor.preprocessing.decode(images / "rotated.png").pixels
    as_it_is = predictor.predict(pixels[None])[0]
    reported = [float(rotated[name]) for name in predictor.record.classes]
    assert reported == pytest.approx(as_it_is, abs=1e-5)
    assert "the gate rejects 2 of 3 images" in capsys.readouterr().err


def test_model_without_a_gate_leaves_the_columns_empty(
    images: Path, tmp_path: Path, publish_bundle: PublishBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = publish_bundle(tmp_path, 1, finish=lambda made: (made / GATE_FILE).unlink(), gate=None)
    for row in table(images, bundle, tmp_path / "out.csv"):
        assert (row["accepted"], row["reasons"], row["repaired_label"]) == ("", "", "")
    assert "rejects" not in capsys.readouterr().err


def test_table_without_the_columns_of_the_gate_is_not_resumed(
    images: Path, tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    bundle = publish_bundle(tmp_path, seed=1)
    out = tmp_path / "out.csv"
    out.write_text("image,label,bacterial_pneumonia,normal,viral_pneumonia,model\r\n")
    with pytest.raises(SystemExit) as ended:
        cxr.main(["predict", str(images), "--bundle", str(bundle), "--csv", str(out)])
    assert ended.value.code == (
        f"{out} is not a table with the columns image, label, bacterial_pneumonia, normal, "
        "viral_pneumonia, accepted, reasons, repaired_label, model: name another file"
    )
