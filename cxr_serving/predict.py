"""``cxr predict``: classify images in files and folders, without a service."""

import csv
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from tqdm import tqdm

from cxr_serving.http.settings import Settings, problems
from cxr_serving.images import files, formats
from cxr_serving.images.dicom import is_dicom
from cxr_serving.images.files import Found
from cxr_serving.images.reader import ImageReader
from cxr_serving.model import DISCLAIMER, gate, processors, store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.gate import Verdict
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import Decoded, ImageError
from cxr_serving.predictions import TableError, table

# A file of such a name is meant to be an image, whatever is in it.
_SUFFIXES = (".jpeg", ".jpg", ".png", ".dcm", ".dicom")
_MAX_BYTES = 2**30
_BATCH = 16


def predict(paths: Sequence[Path], directory: Path | None, csv_file: Path | None) -> None:
    """Write the table; exit with 1 if an image could not be read or nothing could be done.

    Args:
        paths: JPEG, PNG or DICOM files, and folders of them.
        directory: of the model; None is the model that the service would serve.
        csv_file: the table, which is resumed if it exists; None is standard output.
    """
    sys.stderr.write(f"{DISCLAIMER}\n")
    try:
        found = find(paths)
        settings = Settings()
        predictor = Predictor(
            directory or _latest(settings),
            settings.device,
            settings.threads,
            settings.precision == "int8",
            _BATCH,
        )
        with table(csv_file, predictor.record) as (file, done):
            images = [image for image in found.images if files.spelled(image) not in done]
            bad = found.unreadable | classify(predictor, images, file)
    except ValidationError as error:
        sys.exit(problems(error))
    except (BundleError, TableError, FileNotFoundError, PermissionError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.stderr.write(
            f"stopped: the same command resumes {csv_file}\n" if csv_file else "stopped\n"
        )
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of the table has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    if found.others:
        names = "\n".join(files.spelled(path) for path in found.others)
        sys.stderr.write(f"{len(found.others)} files hold no image and were skipped:\n{names}\n")
    if bad:
        lines = [f"{files.spelled(path)}: {reason}" for path, reason in sorted(bad.items())]
        total = len(found.images) + len(found.unreadable)
        sys.exit(f"{len(bad)} of {total} images could not be read:\n" + "\n".join(lines))


@dataclass(frozen=True)
class Finds:
    """The files below the paths of a command line, in order.

    Attributes:
        images: named files, and files in folders that are images by content or by suffix.
        unreadable: files and folders that cannot be opened, each with the reason.
        others: files in folders that are not images.
    """

    images: list[Path]
    unreadable: dict[Path, str]
    others: list[Path]


def _latest(settings: Settings) -> Path:
    """The model that the service would serve; from a bucket, if it is there."""
    replica = settings.replica()
    if replica is not None:
        replica.follow()
    directory = store.latest(settings.directory)
    if replica is not None:
        replica.require(directory.name)
    return directory


def find(paths: Sequence[Path]) -> Finds:
    """Sort files, and those in folders, by their content.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no image.
    """
    finds = Finds([], {}, [])
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"{files.spelled(path)} does not exist")
            _sort(files.look(path), finds, named=True)
            continue
        count = len(finds.images) + len(finds.unreadable)
        for found in files.walk([path]):
            _sort(found, finds, named=False)
        if len(finds.images) + len(finds.unreadable) == count:
            raise FileNotFoundError(
                f"{files.spelled(path)} holds no JPEG, PNG or DICOM file: name another folder"
            )
    return Finds(
        list(dict.fromkeys(finds.images)), finds.unreadable, list(dict.fromkeys(finds.others))
    )


def _sort(found: Found, finds: Finds, named: bool) -> None:
    path = found.path
    if found.problem is not None:
        finds.unreadable[path] = found.problem
        return
    try:
        with path.open("rb") as file:
            head, size = file.read(formats.HEAD_BYTES), os.fstat(file.fileno()).st_size
    except OSError as error:
        finds.unreadable[path] = f"the file cannot be read: {error.strerror}"
        return
    image = (formats.kind(head) or is_dicom(head)) and not formats.is_dicomdir(head)
    if not (named or image or path.suffix.lower() in _SUFFIXES):
        finds.others.append(path)
    elif size > _MAX_BYTES:
        finds.unreadable[path] = "the file is larger than 1 GiB, which no radiograph is"
    else:
        finds.images.append(path)


def classify(predictor: Predictor, images: Sequence[Path], file: TextIO) -> dict[Path, str]:
    """Write one row per image: path, top-1 class, probabilities, what the gate says, model.

    If the gate rejects any, a line on standard error says how many.

    Args:
        predictor: the model.
        images: JPEG, PNG or DICOM files.
        file: the table, flushed after each batch.

    Returns:
        The images that could not be read, each with the reason.
    """
    bad: dict[Path, str] = {}
    rejected = 0
    writer = csv.writer(file)
    reader = ImageReader()

    def decode(image: Path) -> Decoded | None:
        try:
            return reader.read(image.read_bytes(), predictor.preprocessing)
        except ImageError as error:
            bad[image] = str(error)
        except OSError as error:
            bad[image] = f"the file cannot be read: {error.strerror}"
        return None

    with (
        closing(reader),
        ThreadPoolExecutor(processors.count()) as pool,
        tqdm(total=len(images), disable=None) as bar,
    ):
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            decoded = zip(batch, pool.map(decode, batch), strict=True)
            read = [(image, found) for image, found in decoded if found is not None]
            if read:
                answers = _answer_repaired(predictor, [found for _, found in read])
                for (image, _), answer in zip(read, answers, strict=True):
                    writer.writerow([files.spelled(image), *answer.cells, predictor.record.version])
                    rejected += answer.verdict is not None and not answer.verdict.accepted
                file.flush()
            bar.update(len(batch))
    if rejected:
        sys.stderr.write(
            f"the gate rejects {rejected} of {len(images) - len(bad)} images: the probabilities of "
            "a row that is not accepted mean nothing\n"
        )
    return bad


@dataclass
class _Answer:
    label: str
    probabilities: npt.NDArray[np.float32]
    verdict: Verdict | None
    repaired_label: str = ""

    @property
    def cells(self) -> list[str]:
        """What the table says of an image between its path and the model."""
        judged = ("", "")
        if self.verdict is not None:
            judged = (str(self.verdict.accepted).lower(), self.verdict.listed)
        numbers = [f"{probability:.6f}" for probability in self.probabilities]
        return [self.label, *numbers, *judged, self.repaired_label]


def _answer_repaired(predictor: Predictor, images: Sequence[Decoded]) -> list[_Answer]:
    """Answer images; those that the gate rejects a second time, repaired, if that helps."""
    answers = _answer(predictor, images)
    repaired = [
        (answer, image._replace(pixels=gate.repaired(image.pixels, answer.verdict.repair)))
        for answer, image in zip(answers, images, strict=True)
        if answer.verdict is not None and answer.verdict.repair is not None
    ]
    if repaired:
        again = _answer(predictor, [image for _, image in repaired])
        for (answer, _), other in zip(repaired, again, strict=True):
            if other.verdict is not None and other.verdict.accepted:
                answer.repaired_label = other.label
    return answers


def _answer(predictor: Predictor, images: Sequence[Decoded]) -> list[_Answer]:
    pixels, colour = zip(*images, strict=True)
    probabilities, _, verdicts = predictor.answer(np.stack(pixels), colour)
    labels = [predictor.record.classes[place] for place in probabilities.argmax(axis=1)]
    judged: Sequence[Verdict | None] = verdicts or [None] * len(images)
    return [_Answer(*row) for row in zip(labels, probabilities, judged, strict=True)]
