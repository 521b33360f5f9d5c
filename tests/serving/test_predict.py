import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_serving import predict
from cxr_serving.predictor import Predictor

PublishBundle = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path / "data"))
    return publish_bundle(tmp_path / "data", seed=1)


@pytest.fixture
def films(tmp_path: Path, make_pixels: Callable[[int, int], np.ndarray]) -> Path:
    """Twenty films in two folders."""
    folder = tmp_path / "films"
    for number in range(20):
        name = f"{number:02}.{'PNG' if number % 3 else 'jpg'}"
        film = folder / ("ward a" if number % 2 else "b,2") / name
        film.parent.mkdir(parents=True, exist_ok=True)
        shifted = np.roll(make_pixels(80, 90), number * 4, axis=1)
        Image.fromarray(shifted).save(film)
    (folder / "notes.txt").write_text("no film")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> str:
    """Exit message of the command, empty when all went well."""
    try:
        predict.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return str(end.code)
    return ""


def test_every_film_of_a_folder_gets_the_answer_of_the_predictor(
    model: Path, films: Path, tmp_path: Path
) -> None:
    command = Path(sys.executable).with_name("cxr-predict")
    finished = subprocess.run(
        [command, films, "--bundle", model], capture_output=True, text=True, check=True
    )
    assert "Not a medical device" in finished.stderr
    table = list(csv.DictReader(finished.stdout.splitlines()))
    predictor = Predictor(model)
    assert [row["film"] for row in table] == sorted(
        str(film) for film in films.rglob("*.*") if film.suffix != ".txt"
    )
    for row in table:
        expected = predictor.predict(predictor.preprocessing.decode(Path(row["film"]))[None])[0]
        told = [float(row[name]) for name in predictor.record.classes]
        assert told == pytest.approx(expected, abs=1e-5)
        assert row["label"] == predictor.record.classes[int(np.argmax(expected))]
        assert row["model"] == model.name


def test_bad_films_are_listed_at_the_end_and_the_others_answered(
    model: Path, films: Path, tmp_path: Path
) -> None:
    broken = films / "ward a" / "99.png"
    broken.write_bytes((films / "ward a" / "01.PNG").read_bytes()[:200])
    message = run(films, films / "notes.txt", "--csv", tmp_path / "out.csv")
    assert message.startswith("2 of 22 images could not be read:\n")
    assert f"{broken}: the image is broken" in message
    assert f"{films / 'notes.txt'}: not a JPEG, PNG or DICOM file" in message
    assert len(rows(tmp_path / "out.csv")) == 20


def test_a_table_that_was_cut_short_is_gone_on_with(
    model: Path, films: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    assert run(films, "--csv", out) == ""
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:6]) + lines[6][:15])
    for row in list(csv.reader(b"".join(lines[1:6]).decode().splitlines())):
        Path(row[0]).write_text("asked again, this would be an error")
    assert run(films, "--csv", out) == ""
    assert out.read_bytes() == whole


def test_what_cannot_be_done_is_said_in_a_line(
    model: Path, films: Path, tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    out = tmp_path / "out.csv"
    assert run(films / "b,2", "--csv", out) == ""
    before = out.read_bytes()
    other = publish_bundle(tmp_path / "data", seed=2)
    assert run(films, "--csv", out) == (
        f"{out} holds answers of model {model.name}, this one is {other.name}: name another file"
    )
    assert out.read_bytes() == before
    header = before.splitlines(keepends=True)[0].decode()
    for text in ("a,b\n", "no line end", "a,b\nfilm", f"{header}\r\n", f"{header}a,b\r\n"):
        (tmp_path / "notes").write_bytes(text.encode())
        assert "not a table of this model's classes" in run(films, "--csv", tmp_path / "notes")
        assert (tmp_path / "notes").read_bytes() == text.encode()
    assert run(tmp_path / "absent") == f"{tmp_path / 'absent'} does not exist"
    (tmp_path / "empty").mkdir()
    assert "holds no JPEG, PNG or DICOM file" in run(tmp_path / "empty")
    assert "bundle.json cannot be read" in run(films, "--bundle", tmp_path / "empty")
    assert "cannot be read or written" in run(films, "--csv", tmp_path)
