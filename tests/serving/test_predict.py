import csv
import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import CXR, without
from dicoms import dicom
from PIL import Image

import cxr
from cxr_serving import predict
from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path / "data"))
    return publish_bundle(tmp_path / "data", seed=1)


@pytest.fixture
def images(tmp_path: Path, make_pixels: Callable[[int, int], np.ndarray]) -> Path:
    """Twenty images in two folders."""
    folder = tmp_path / "images"
    for number in range(20):
        name = f"{number:02}.{'PNG' if number % 3 else 'jpg'}"
        image = folder / ("ward a" if number % 2 else "b,2") / name
        image.parent.mkdir(parents=True, exist_ok=True)
        shifted = np.roll(make_pixels(80, 90), number * 4, axis=1)
        Image.fromarray(shifted).save(image)
    (folder / "notes.txt").write_text("no image")
    return folder


def pixels12() -> np.ndarray:
    return np.add.outer(np.arange(64) * 30, np.arange(64) * 30).astype(np.uint16)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> str:
    """Exit message of the command, empty when all went well."""
    try:
        cxr.main(["predict", *map(str, arguments)])
    except SystemExit as end:
        return str(end.code or "")
    raise AssertionError("a command ends with its exit status")


def test_every_image_of_a_folder_gets_the_answer_of_the_predictor(
    model: Path, images: Path, tmp_path: Path
) -> None:
    finished = subprocess.run(
        [CXR, "predict", images, "--bundle", model], capture_output=True, text=True, check=True
    )
    assert "Not a medical device" in finished.stderr
    table = list(csv.DictReader(finished.stdout.splitlines()))
    predictor = Predictor(model)
    assert [row["image"] for row in table] == sorted(
        str(image) for image in images.rglob("*.*") if image.suffix != ".txt"
    )
    for row in table:
        pixels = predictor.preprocessing.decode(Path(row["image"])).pixels
        [expected] = predictor.predict(pixels[None])
        reported = [float(row[name]) for name in predictor.record.classes]
        assert reported == pytest.approx(expected, abs=1e-5)
        assert row["label"] == predictor.record.classes[int(np.argmax(expected))]
        assert row["model"] == model.name


def test_bad_images_are_listed_at_the_end_and_the_others_answered(
    model: Path, images: Path, tmp_path: Path
) -> None:
    broken = images / "ward a" / "99.png"
    broken.write_bytes((images / "ward a" / "01.PNG").read_bytes()[:200])
    message = run(images, images / "notes.txt", "--csv", tmp_path / "out.csv")
    assert message.startswith("2 of 22 images could not be read:\n")
    assert f"{broken}: the image is broken" in message
    assert f"{images / 'notes.txt'}: not a JPEG, PNG or DICOM file" in message
    assert len(rows(tmp_path / "out.csv")) == 20


def test_a_table_that_was_cut_short_is_resumed(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert run(images, "--csv", out) == ""
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:6]) + lines[6][:15])
    for row in list(csv.reader(b"".join(lines[1:6]).decode().splitlines())):
        Path(row[0]).write_text("read again, this would be an error")
    assert run(images, "--csv", out) == ""
    assert out.read_bytes() == whole


def test_what_cannot_be_done_is_said_in_a_line(
    model: Path, images: Path, tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    out = tmp_path / "out.csv"
    assert run(images / "b,2", "--csv", out) == ""
    before = out.read_bytes()
    other = publish_bundle(tmp_path / "data", seed=2)
    assert run(images, "--csv", out) == (
        f"{out} holds predictions of model {model.name}, this one is {other.name}: "
        "name another file"
    )
    assert out.read_bytes() == before
    header = before.splitlines(keepends=True)[0].decode()
    for text in (
        "a,b\n",
        "no line end",
        "a,b\nimage",
        f"{header}\r\n",
        f"{header}a,b\r\n",
        "r\xf6\n",
    ):
        (tmp_path / "notes").write_bytes(text.encode("latin-1"))
        assert "is not a table with the columns image, label, " in run(
            images, "--csv", tmp_path / "notes"
        )
        assert (tmp_path / "notes").read_bytes() == text.encode("latin-1")
    assert run(tmp_path / "absent") == f"{tmp_path / 'absent'} does not exist"
    (tmp_path / "empty").mkdir()
    assert "holds no JPEG, PNG or DICOM file" in run(tmp_path / "empty")
    assert "bundle.json cannot be read" in run(images, "--bundle", tmp_path / "empty")
    assert "cannot be read or written" in run(images, "--csv", tmp_path)


def test_a_download_and_a_disc_are_read_by_content(
    model: Path, images: Path, tmp_path: Path, image: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(images / "ward a")
    disc = images / "DICOM" / "PA000001" / "ST000001"
    disc.mkdir(parents=True)
    for name in ("IM000001", "IM000002.dicom", ".hidden"):
        (disc / name).write_bytes(dicom(pixels12()))
    (disc / "scan").write_bytes(image)
    for debris in ("__MACOSX/._x.jpeg", "b,2/._00.jpg", "Thumbs.db", "DICOM/desktop.ini"):
        (images / debris).parent.mkdir(exist_ok=True)
        (images / debris).write_bytes(b"\0\5\x16\7" + bytes(160))
    directory = dicom(pixels12())
    uid = b"1.2.840.10008.1.3.10"
    (images / "DICOMDIR").write_bytes(directory[:132] + uid + directory[132:])
    (images / "viewer.exe").write_bytes(b"MZ" + bytes(999))
    assert run(images, "--csv", tmp_path / "out.csv") == ""
    answered = {Path(row["image"]).name for row in rows(tmp_path / "out.csv")}
    assert answered == {
        *("IM000001", "IM000002.dicom", ".hidden", "scan"),
        *(path.name for path in (images / "b,2").iterdir() if not path.name.startswith("._")),
    }
    listed = capsys.readouterr().err.split("3 files hold no image and were skipped:\n")[1]
    assert listed.splitlines() == [
        str(images / name) for name in ("DICOMDIR", "notes.txt", "viewer.exe")
    ]


def test_what_is_meant_to_be_an_image_and_cannot_be_read_is_listed(
    model: Path, images: Path, tmp_path: Path, encode_image: Callable[..., bytes]
) -> None:
    shutil.rmtree(images / "ward a")
    bad = {
        "empty.jpeg": "the file is empty",
        "text.dicom": "not a JPEG, PNG or DICOM file",
        "a scan": "not a JPEG, PNG or DICOM file: it is a TIFF file",
        "black": "the image is blank or nearly so",
        "gone.png": "the file cannot be read: No such file or directory",
        "pipe.jpeg": "it is a pipe, a socket or a device",
    }
    (images / "empty.jpeg").touch()
    (images / "text.dicom").write_text("no image")
    (images / "a scan").write_bytes(encode_image(Image.new("L", (9, 9)), "TIFF"))
    (images / "black").write_bytes(encode_image(Image.new("L", (9, 9)), "PNG"))
    (images / "gone.png").symlink_to(images / "nowhere")
    os.mkfifo(images / "pipe.jpeg")
    message = run(images, "--csv", tmp_path / "out.csv")
    assert message.startswith("6 of 16 images could not be read:\n")
    for name, reason in bad.items():
        assert f"{images / name}: {reason}" in message
    assert len(rows(tmp_path / "out.csv")) == 10


def odd_names(images: Path, image: bytes) -> list[bytes]:
    names = [
        *(b"a.jpeg", b"r\xf6ntgen.jpeg", "r\xf6ntgen.jpeg".encode(), b'q"u,o\tte.jpeg'),
        *("line\u2028separator.jpeg".encode(), b"line\nfeed.jpeg", b"return\r.jpeg", b"z.jpeg"),
    ]
    shutil.rmtree(images)
    images.mkdir()
    for name in names:
        (images / os.fsdecode(name)).write_bytes(image)
    return names


def test_any_name_survives_a_table_that_is_resumed_in_any_locale(
    model: Path, images: Path, tmp_path: Path, image: bytes
) -> None:
    names, out = odd_names(images, image), tmp_path / "out.csv"
    latin = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([CXR, "predict", images, "--csv", out], check=True, env=latin)
    whole = out.read_bytes()
    table = rows(out)
    assert len(table) == len({row["image"] for row in table}) == len(names)
    assert str(images / "line\u2028separator.jpeg") in {row["image"] for row in table}
    for name in names:
        (images / os.fsdecode(name)).write_text("read again, this would be an error")
    assert run(images, "--csv", out) == ""
    assert out.read_bytes() == whole


def test_a_table_cut_anywhere_is_resumed(
    model: Path, images: Path, tmp_path: Path, image: bytes
) -> None:
    names, out = odd_names(images, image), tmp_path / "out.csv"
    assert run(images, "--csv", out) == ""
    whole = out.read_bytes()
    for name in (b"line\nfeed", b"return\r", b'q""u,o'):
        out.write_bytes(whole[: whole.index(name) + len(name)])
        assert run(images, "--csv", out) == ""
        assert out.read_bytes() == whole
    assert len(rows(out)) == len(names)


def test_an_interrupt_ends_the_command_with_130_and_says_how_to_resume(
    model: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "classify", interrupted)
    assert run(images, "--csv", tmp_path / "out.csv") == "130"
    assert f"stopped: the same command resumes {tmp_path / 'out.csv'}" in capsys.readouterr().err
    assert run(images) == "130"
    assert capsys.readouterr().err.endswith("stopped\n")


def test_no_extra_is_needed(model: Path, images: Path, tmp_path: Path) -> None:
    absent = without(tmp_path, "fastapi", "lightning", "mlflow", "cxr_assets", "pydicom", "gdcm")
    printed = subprocess.run(
        [CXR, "predict", images / "b,2"], env=absent, stdout=subprocess.PIPE, check=True
    ).stdout
    assert len(printed.splitlines()) == 11


def test_standard_output_is_utf8_in_every_locale(model: Path, images: Path, image: bytes) -> None:
    names = odd_names(images, image)
    latin = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    printed = subprocess.run(
        [CXR, "predict", images], capture_output=True, env=latin, check=True
    ).stdout
    table = list(csv.reader(io.StringIO(printed.decode(), newline="")))
    assert len(table) == len(names) + 1


def test_a_reader_that_leaves_ends_the_command_quietly(model: Path, images: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [CXR, "predict", images], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert ended.returncode == 141, "what the shell says of a program that SIGPIPE ended"
    assert len(ended.stderr.splitlines()) == 1, "no more than the disclaimer"
