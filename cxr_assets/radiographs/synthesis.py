"""Synthetic chest radiographs in the layout and naming of Kaggle's images.

A synthetic image is a sum of attenuations (white is dense) on a square canvas with x to the right
and y down, both from -1 to 1: trunk, spine, heart, liver, ribs and clavicles, less where the lungs
hold air. A patient keeps its anatomy over its images; pose, exposure, noise and frame vary.
Bacterial pneumonia is one dense patch in one lung, viral pneumonia a net of streaks through both, a
normal image has neither. Everything but the disease is drawn from the same distributions for the
three classes, the frame's size too.
"""

import itertools
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cxr_assets import written
from cxr_assets.provenance import code_version
from cxr_assets.radiographs.naming import CLASSES, SPLITS
from cxr_serving.model.atomic import set_aside

MARKER_FILE = "SYNTHETIC.txt"
KIND = "synthetic images"
_foreign = partial(written.foreign, kind=KIND)
MIN_PATIENTS = 3

_CANVAS = 176
_AXIS = np.linspace(-1, 1, _CANVAS, dtype=np.float32)
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_IMAGES_A_PATIENT = ((1, 2, 3, 5), (0.5, 0.27, 0.15, 0.08))
_FONT = ImageFont.load_default(size=11)

Array = npt.NDArray[np.floating[Any]]


def make(
    root: Path, patients: int, seed: int, progress: Callable[[str], None] = lambda line: None
) -> None:
    """Write synthetic images of ``patients`` patients a class, or keep these if they are there.

    Those that are there are first known to be whole; else they are set aside and made again.

    A fifth of the patients is in ``test/``, a fiftieth in ``val/``, at least one in each, the
    others in ``train/``. Every image depends on seed, class, patient and image number alone.

    Args:
        root: is replaced whole, at the end; ``SYNTHETIC.txt`` in it says what it holds.
        patients: patients a class, at least 3, with 1.9 images each on average.
        seed: of every random choice.
        progress: called with a line where images that were there are broken.

    Raises:
        ValueError: too few patients to have some in each split.
    """
    if patients < MIN_PATIENTS:
        raise ValueError(
            f"{patients} synthetic patients a class are too few for train, val and test: "
            f"set data.synthetic_patients to {MIN_PATIENTS} or more"
        )
    code = code_version(__name__)[:12]
    marker = (
        "These radiographs are synthetic: drawn by a program, of no patient.\n"
        f"patients a class {patients}, seed {seed}, made by synthesis.py {code}\n"
    )
    if (root / MARKER_FILE).is_file() and (root / MARKER_FILE).read_text() == marker:
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
            children = itertools.product(CLASSES, range(patients))
            list(pool.map(lambda child: _write(unfinished, patients, seed, *child), children))
        (unfinished / MARKER_FILE).write_text(marker)
        written.seal(unfinished, KIND)
        written.replace(unfinished, root, _foreign, root.parent / "set-aside")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(root: Path, patients: int, seed: int, label: str, patient: int) -> None:
    for path, image in _images(label, patient, patients, seed):
        # Pillow itself does not notice a full disk while it writes a JPEG.
        content = BytesIO()
        image.save(content, "JPEG", quality=90)
        (root / path).write_bytes(content.getbuffer())


def _images(
    label: str, patient: int, patients: int, seed: int
) -> Iterator[tuple[PurePosixPath, Image.Image]]:
    child = np.random.default_rng([seed, CLASSES.index(label), patient])
    anatomy = _Anatomy.draw(child)
    counts, shares = _IMAGES_A_PATIENT
    # SeedSequence pads with zeros, so image 0 would repeat the child's own stream.
    for exposure in range(1, 1 + int(child.choice(counts, p=shares))):
        rng = np.random.default_rng([seed, CLASSES.index(label), patient, exposure])
        name = _name(label, patient, exposure)
        yield PurePosixPath(_split(patient, patients)) / name, _expose(anatomy, label, rng)


def _split(patient: int, patients: int) -> str:
    test, val = max(1, patients // 5), max(1, patients // 50)
    if patient < test:
        return "test"
    return "val" if patient < test + val else "train"


def _name(label: str, patient: int, exposure: int) -> str:
    if label == "normal":
        prefix = "NORMAL2-IM" if patient % 2 else "IM"
        series = "0001" if exposure == 1 else f"0001-{exposure:04}"
        return f"NORMAL/{prefix}-{115 + patient:04}-{series}.jpeg"
    cause = "bacteria" if label == "bacterial_pneumonia" else "virus"
    return f"PNEUMONIA/person{1 + patient}_{cause}_{8 * patient + exposure}.jpeg"


@dataclass(frozen=True)
class _Anatomy:
    """What stays the same over the images of a patient; lengths in canvas units."""

    chest: float
    apex: float
    dome: float
    dome_height: float
    heart: float
    heart_shift: float
    ribs: float
    rib_slope: float
    clavicle: float
    trunk: float
    bubble: float
    vessels: float
    side: int
    lobe: tuple[float, float]
    extent: tuple[float, float]
    tilt: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_Anatomy":
        u = rng.uniform
        return cls(
            chest=u(0.62, 0.74),
            apex=u(-0.78, -0.68),
            dome=u(0.42, 0.6),
            dome_height=u(0.12, 0.24),
            heart=u(0.26, 0.36),
            heart_shift=u(0.1, 0.17),
            ribs=u(0.17, 0.2),
            rib_slope=u(0.22, 0.42),
            clavicle=u(-0.68, -0.6),
            trunk=u(0.86, 1.0),
            bubble=max(0.0, u(-0.5, 0.8)),
            vessels=u(0.25, 1.0),
            side=int(rng.choice((-1, 1))),
            lobe=(u(0.28, 0.5), u(-0.5, 0.42)),
            extent=(u(0.14, 0.24), u(0.15, 0.28)),
            tilt=u(-0.6, 0.6),
        )


def _expose(anatomy: _Anatomy, label: str, rng: np.random.Generator) -> Image.Image:
    """Take one image of a patient: pose, disease, exposure, frame, grain."""
    u = rng.uniform
    angle, zoom = math.radians(u(-4, 4)), u(0.94, 1.14)
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    x = cos * _X - sin * _Y + u(-0.07, 0.07)
    y = sin * _X + cos * _Y + u(-0.08, 0.06)
    breath = u(-0.06, 0.06)

    lungs = _lungs(anatomy, x, y, breath)
    density = _thorax(anatomy, x, y, lungs, breath)
    density += lungs * 0.16 * anatomy.vessels * _vessels(x, y, rng)
    density += lungs * _disease(anatomy, label, x, y, rng)
    density += lungs * (u(-0.03, 0.04) + 0.015 * _noise(rng, 4) + u(0, 0.025) * _net(rng, 18))
    density += 0.02 * _noise(rng, 10)

    width, height = _frame(rng)
    exposure = np.asarray(
        Image.fromarray(density).resize((width, height), Image.Resampling.BICUBIC)
    )
    exposure = 1 - np.exp(-u(1.1, 1.5) * np.maximum(exposure, 0))
    exposure = np.clip((exposure - u(0.0, 0.06)) / u(0.86, 1.0), 0, 1) ** u(0.9, 1.2)
    grain = rng.standard_normal(exposure.shape, dtype=np.float32)
    image = Image.fromarray(
        (np.clip(exposure + u(0.008, 0.03) * grain, 0, 1) * 255).astype(np.uint8)
    )
    pen = ImageDraw.Draw(image)
    pen.text((6, 4), "SYNTHETIC", fill=225, font=_FONT)
    return image


def _frame(rng: np.random.Generator) -> tuple[int, int]:
    area, aspect = rng.uniform(270, 360), rng.uniform(1.0, 1.32)
    return round(area * aspect**0.5), round(area / aspect**0.5)


def _lungs(anatomy: _Anatomy, x: Array, y: Array, breath: float) -> Array:
    """Share of air in [0, 1]: between chest wall, mediastinum and the domes of the diaphragm."""
    middle = 0.5 * (anatomy.apex + anatomy.dome)
    reach = anatomy.dome - anatomy.apex
    wall = anatomy.chest * np.sqrt(np.clip(1 - ((y - middle - 0.3) / (0.98 * reach)) ** 2, 0.0, 1))
    floor = anatomy.dome + breath - anatomy.dome_height * np.cos(4.4 * (np.abs(x) - 0.3))
    floor -= 0.05 * (x < 0)
    side = np.abs(x)
    inside = _step((wall - side) * 40) * _step((side - 0.1 - 0.03 * y) * 34)
    below_apex = _step((y - anatomy.apex - 0.9 * (side - 0.28) ** 2) * 30)
    return inside * below_apex * _step((floor - y) * 34)


def _thorax(anatomy: _Anatomy, x: Array, y: Array, lungs: Array, breath: float) -> Array:
    """Attenuation of everything but vessels and disease."""
    side = np.abs(x)
    shoulders = anatomy.trunk * (0.86 + 0.14 * _step((-y - 0.35) * 14)) * _step((y + 1.25) * 9)
    neck = _step((y + 0.98 - 0.85 * np.clip(side - 0.2, 0, None)) * 22)
    neck = np.maximum(neck, _step((0.22 - side) * 30))
    arms = _ellipse(side - 1.02, y + 0.1, 0.2, 0.72, -0.22)
    trunk = np.maximum(_step((shoulders - side) * 26) * neck, 0.8 * arms)
    spine = np.exp(-((x / 0.085) ** 2)) * (0.8 + 0.2 * np.cos(math.tau * y / 0.155))
    mediastinum = _step((0.14 - side) * 32) * _step((y + 0.62) * 8)
    trachea = np.exp(-(((x + 0.01) / 0.035) ** 2)) * _step((-0.3 - y) * 12)
    heart = _ellipse(x - anatomy.heart_shift, y - 0.2 - breath, anatomy.heart, anatomy.heart, 0.5)
    atrium = _ellipse(x + 0.1, y - 0.24 - breath, 0.13, 0.24, 0.0)
    arch = _ellipse(x - 0.1, y + 0.3, 0.09, 0.1, 0.0)
    below = _step((y - anatomy.dome - breath + 0.02) * 18) * (1 - lungs)
    bubble = anatomy.bubble * _ellipse(x - 0.32, y - anatomy.dome - breath - 0.13, 0.17, 0.09, 0.2)

    cage = _step((anatomy.chest + 0.05 - side) * 30) * _step((y - anatomy.apex + 0.08) * 24)
    back = y - anatomy.rib_slope * side + 0.9 * side**2
    front = y + 0.75 * side - 0.2 * side**2
    ribs = _bands(back, anatomy.ribs, 5.0)
    ribs += 0.45 * _bands(front, anatomy.ribs * 1.08, 4.0) * _step((side - 0.26) * 16)
    line = y - anatomy.clavicle + 0.16 * side - 0.05 * np.sin(7 * side)
    clavicles = (
        np.exp(-((line / 0.032) ** 2)) * _step((side - 0.07) * 40) * _step((0.78 - side) * 30)
    )

    density: Array = trunk * (0.62 + 0.1 * below) - 0.46 * lungs
    density += trunk * (0.22 * spine + 0.3 * mediastinum - 0.2 * trachea)
    density += trunk * np.maximum(np.maximum(0.42 * heart, 0.3 * atrium), 0.2 * arch)
    density += trunk * (
        0.12 * ribs * cage * (0.3 + 0.7 * _step((0.6 - y) * 10)) + 0.22 * clavicles - 0.16 * bubble
    )
    return density


def _vessels(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Branches of the hila, fading outwards: what a net of streaks must be told from."""
    side = np.abs(x)
    angle = np.arctan2(y - 0.02, side - 0.12)
    radius = np.sqrt((y - 0.02) ** 2 + (side - 0.12) ** 2)
    branches = np.zeros_like(x)
    for count in (5.0, 9.0):
        right, left = rng.uniform(0, math.tau, 2).astype(np.float32)
        wave = np.cos(count * angle + np.where(x > 0, left, right) + 5 * radius)
        branches += np.exp(5 * (wave - 1))
    branches *= np.exp(-2.6 * radius)
    branches += 1.2 * np.exp(-((radius / 0.13) ** 2))
    return branches


def _disease(anatomy: _Anatomy, label: str, x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Attenuation that the disease adds inside the lungs."""
    if label == "bacterial_pneumonia":
        across, down = anatomy.lobe
        ragged = 1 + 0.3 * _noise(rng, 12)
        grown = rng.uniform(0.85, 1.2)
        patch = _ellipse(
            x - anatomy.side * across,
            y - down,
            anatomy.extent[0] * grown * ragged,
            anatomy.extent[1] * grown * ragged,
            anatomy.tilt,
            edge=7,
        )
        return rng.uniform(0.28, 0.5) * patch * (1 + 0.25 * _noise(rng, 30))
    if label == "viral_pneumonia":
        hila = np.exp(-2.0 * np.sqrt((np.abs(x) - 0.2) ** 2 + (y - 0.05) ** 2))
        patchy = np.clip(1 + 0.35 * _noise(rng, 6), 0.2, 2)
        streaks: Array = patchy * (0.3 + 0.9 * hila) * (0.7 + _net(rng, 18))
        return rng.uniform(0.14, 0.26) * streaks
    return np.zeros_like(x)


def _net(rng: np.random.Generator, cells: int) -> Array:
    """Fine irregular lines of zero mean: the zero crossings of noise at two scales."""
    coarse, fine = _noise(rng, cells), _noise(rng, 2 * cells)
    lines: Array = np.exp(-8 * coarse * coarse) + 0.7 * np.exp(-6 * fine * fine)
    lines -= lines.mean()
    return lines


def _step(position: Array) -> Array:
    """The logistic function, 0 to 1; by way of tanh, which numpy has vectorised."""
    step: Array = 0.5 + 0.5 * np.tanh(0.5 * position)
    return step


def _ellipse(
    x: Array, y: Array, width: float | Array, height: float | Array, tilt: float, edge: float = 12
) -> Array:
    cos, sin = math.cos(tilt), math.sin(tilt)
    across, down = (cos * x + sin * y) / width, (cos * y - sin * x) / height
    return _step((1 - np.sqrt(across * across + down * down)) * edge)


def _bands(position: Array, spacing: float, sharpness: float) -> Array:
    bands: Array = np.exp(sharpness * (np.cos(math.tau / spacing * position) - 1))
    return bands


def _noise(rng: np.random.Generator, cells: int) -> Array:
    """Smooth noise of unit scale with ``cells`` cells a side."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC))
