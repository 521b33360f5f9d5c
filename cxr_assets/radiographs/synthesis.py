"""A folder of synthetic chest radiographs, laid out and named as Kaggle's are."""

import itertools
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from cxr_assets import written
from cxr_assets.progress import Progress
from cxr_assets.provenance import code_version
from cxr_assets.radiographs import anatomy
from cxr_assets.radiographs.naming import KAGGLE_CLASSES, SPLITS
from cxr_serving.model.atomic import set_aside

MARKER_FILE = "SYNTHETIC.txt"
KIND = "synthetic images"
_foreign = partial(written.foreign, kind=KIND)

# How many images a patient has, and how often.
_IMAGES_PER_PATIENT = ((1, 2, 3, 5), (0.5, 0.27, 0.15, 0.08))


def make(root: Path, patients: int, seed: int, progress: Progress = lambda line: None) -> None:
    """Write synthetic images of ``patients`` patients per class, or reuse those that are there.

    Existing images are verified first. If they are broken, they are set aside and made again.

    A fifth of the patients goes to ``test/``, a fiftieth to ``val/``, at least one to each, the
    others to ``train/``. An image depends on seed, class, patient and image number only.

    Args:
        root: target folder, replaced as a whole at the end; ``SYNTHETIC.txt`` describes it.
        patients: patients per class, at least 3, with 1.9 images each on average.
        seed: of every random choice.
        progress: called with a line if existing images are broken.

    Raises:
        ValueError: too few patients for three splits.
    """
    if patients < len(SPLITS):
        raise ValueError(
            f"{patients} synthetic patients per class are too few for train, val and test: "
            f"set data.synthetic_patients to {len(SPLITS)} or more"
        )
    code = code_version(__name__)[:12]
    marker = (
        "These radiographs are synthetic: made by a program, they show no patient.\n"
        f"patients per class {patients}, seed {seed}, made by synthesis.py {code}\n"
    )
    if (root / MARKER_FILE).is_file() and (root / MARKER_FILE).read_text(
        encoding="utf-8"
    ) == marker:
        if (problem := written.fault(root)) is None:
            return
        progress(f"set aside as {set_aside(root)} and made again: {problem}")
    root.parent.mkdir(parents=True, exist_ok=True)
    written.remove_leftovers(root, _foreign)
    unfinished = root.with_name(f".{root.name}.{os.getpid()}.partial")
    try:
        written.begin(unfinished, KIND)
        for split, folder in itertools.product(SPLITS, ("NORMAL", "PNEUMONIA")):
            (unfinished / split / folder).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:
            every = itertools.product(KAGGLE_CLASSES, range(patients))
            list(pool.map(lambda patient: _write(unfinished, patients, seed, *patient), every))
        (unfinished / MARKER_FILE).write_text(marker, encoding="utf-8")
        written.seal(unfinished, KIND)
        written.replace(unfinished, root, _foreign, root.parent / "set-aside")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def encoded(patients: int, seed: int) -> dict[PurePosixPath, bytes]:
    """What :func:`make` writes with the same arguments: JPEGs, by their paths below its root."""
    every = itertools.product(KAGGLE_CLASSES, range(patients))
    return dict(file for patient in every for file in _encoded(patients, seed, *patient))


def _write(root: Path, patients: int, seed: int, label: str, patient: int) -> None:
    # Pillow itself does not notice a full disk while it writes a JPEG.
    for path, content in _encoded(patients, seed, label, patient):
        (root / path).write_bytes(content)


def _encoded(
    patients: int, seed: int, label: str, patient: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
    for path, image in _images(label, patient, patients, seed):
        content = BytesIO()
        image.save(content, "JPEG", quality=90)
        yield path, content.getvalue()


def _images(
    label: str, patient: int, patients: int, seed: int
) -> Iterator[tuple[PurePosixPath, Image.Image]]:
    rng = np.random.default_rng([seed, KAGGLE_CLASSES.index(label), patient])
    body = anatomy.Anatomy.sample(rng)
    counts, shares = _IMAGES_PER_PATIENT
    # SeedSequence pads with zeros, so image 0 would repeat the patient's own stream.
    for number in range(1, 1 + int(rng.choice(counts, p=shares))):
        name = _name(label, patient, number)
        image_rng = np.random.default_rng([seed, KAGGLE_CLASSES.index(label), patient, number])
        yield (
            PurePosixPath(_split(patient, patients)) / name,
            anatomy.expose(body, label, image_rng),
        )


def _split(patient: int, patients: int) -> str:
    test, val = max(1, patients // 5), max(1, patients // 50)
    if patient < test:
        return "test"
    return "val" if patient < test + val else "train"


def _name(label: str, patient: int, number: int) -> str:
    if label == "normal":
        prefix = "NORMAL2-IM" if patient % 2 else "IM"
        series = "0001" if number == 1 else f"0001-{number:04}"
        return f"NORMAL/{prefix}-{115 + patient:04}-{series}.jpeg"
    cause = "bacteria" if label == "bacterial_pneumonia" else "virus"
    return f"PNEUMONIA/person{1 + patient}_{cause}_{8 * patient + number}.jpeg"
