"""``cxr-predict``: classify films in files and folders, without a service."""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from tqdm import tqdm

from cxr_serving import bundle
from cxr_serving.bundle import BundleError
from cxr_serving.films import FilmReader
from cxr_serving.predictor import Predictor
from cxr_serving.preprocessing import FilmError
from cxr_serving.schemas import DISCLAIMER
from cxr_serving.settings import Settings, problems

_SUFFIXES = (".jpeg", ".jpg", ".png", ".dcm")
_BATCH = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, classify, and exit with 1 when a film could not be read."""
    parser = argparse.ArgumentParser(prog="cxr-predict", description=__doc__, epilog=DISCLAIMER)
    parser.add_argument(
        "films", nargs="+", type=Path, help="JPEG, PNG or DICOM files, and folders of them"
    )
    parser.add_argument(
        "--bundle", type=Path, help="a model's directory; what the service would serve by default"
    )
    parser.add_argument(
        "--csv", type=Path, help="where the table goes, or goes on; standard output by default"
    )
    options = parser.parse_args(arguments)
    sys.stderr.write(f"{DISCLAIMER}\n")
    try:
        films = find(options.films)
        settings = Settings()
        predictor = Predictor(
            options.bundle or bundle.latest(settings.directory),
            settings.device,
            settings.threads,
            settings.precision == "int8",
        )
        with table(options.csv, predictor) as (file, done):
            bad = classify(predictor, [film for film in films if str(film) not in done], file)
    except ValidationError as error:
        sys.exit(problems(error))
    except (BundleError, TableError, FileNotFoundError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped" + ("; the same command goes on" if options.csv else ""))
    if bad:
        lines = [f"{film}: {reason}" for film, reason in bad.items()]
        sys.exit(f"{len(bad)} of {len(films)} films could not be read:\n" + "\n".join(lines))


class TableError(Exception):
    """A table cannot be gone on with; the message says why."""


def find(paths: Sequence[Path]) -> list[Path]:
    """Files as they are named, and the JPEG, PNG and DICOM files anywhere in folders, in order.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no film.
    """
    films: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
            if not inside:
                raise FileNotFoundError(f"{path} holds no {', '.join(_SUFFIXES)} file")
            films += inside
        elif path.exists():
            films.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return list(dict.fromkeys(films))


@contextmanager
def table(path: Path | None, predictor: Predictor) -> Iterator[tuple[TextIO, set[str]]]:
    """A CSV file to write on, its header written, and the films that it tells already.

    Of a table that was cut short by a kill, the last line is dropped where it is not whole.

    Args:
        path: of the table; standard output when None.
        predictor: who answers; each line names its version.

    Raises:
        TableError: the file holds something else, or the answers of another model.
    """
    header = ["film", "label", *predictor.record.classes, "model"]
    if path is None:
        csv.writer(sys.stdout).writerow(header)
        yield sys.stdout, set()
        return
    try:
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = list(csv.reader(whole.decode().splitlines()))
        begun = lines[0] == header if lines else ",".join(header).encode().startswith(content)
        if not begun:
            raise TableError(f"{path} is not a table of this model's classes: name another file")
        if others := {line[-1] for line in lines[1:]} - {predictor.record.version}:
            raise TableError(
                f"{path} holds answers of model {', '.join(sorted(others))}, this one is "
                f"{predictor.record.version}: name another file"
            )
        with path.open("a", newline="") as file:
            file.truncate(len(whole))
            if not lines:
                csv.writer(file).writerow(header)
            yield file, {line[0] for line in lines[1:]}
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path} cannot be read or written: {error}") from error


def classify(predictor: Predictor, films: Sequence[Path], file: TextIO) -> dict[Path, str]:
    """Write a line a film: its path, the most probable class, all probabilities, the model.

    Args:
        predictor: who answers.
        films: JPEG, PNG or DICOM files.
        file: where the lines go; flushed every few films.

    Returns:
        The films that could not be read, each with the reason.
    """
    bad: dict[Path, str] = {}
    writer = csv.writer(file)
    reader = FilmReader()

    def decode(film: Path) -> npt.NDArray[np.uint8] | None:
        try:
            return reader.read(film.read_bytes(), predictor.preprocessing)
        except (FilmError, OSError) as error:
            bad[film] = str(error)
            return None

    with (
        closing(reader),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(films), disable=None) as bar,
    ):
        for start in range(0, len(films), _BATCH):
            batch = films[start : start + _BATCH]
            decoded = zip(batch, pool.map(decode, batch), strict=True)
            read = [(film, pixels) for film, pixels in decoded if pixels is not None]
            if read:
                answers = predictor.predict(np.stack([pixels for _, pixels in read]))
                for (film, _), probabilities in zip(read, answers, strict=True):
                    label = predictor.record.classes[int(probabilities.argmax())]
                    numbers = [f"{probability:.6f}" for probability in probabilities]
                    writer.writerow([film, label, *numbers, predictor.record.version])
                file.flush()
            bar.update(len(batch))
    return dict(sorted(bad.items()))


if __name__ == "__main__":
    main()
