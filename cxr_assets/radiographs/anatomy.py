"""One synthetic radiograph: from a random anatomy to grey levels.

An image is a sum of attenuations (white is dense) on a square canvas with x to the right and y
down, both from -1 to 1: trunk, spine, heart, liver, ribs and clavicles, less where the lungs hold
air. A patient keeps the anatomy over all images; pose, exposure, noise and frame vary. Bacterial
pneumonia is one dense patch in one lung, viral pneumonia a net of streaks through both, a normal
image has neither. Everything else, the size of the frame too, has the same distribution in all
three classes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_CANVAS = 176
_AXIS = np.linspace(-1, 1, _CANVAS, dtype=np.float32)
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_FONT = ImageFont.load_default(size=11)

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Anatomy:
    """What the images of a patient share; lengths in units of the canvas."""

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
    def sample(cls, rng: np.random.Generator) -> "Anatomy":
        """The anatomy of a random patient."""
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


def expose(anatomy: Anatomy, label: str, rng: np.random.Generator) -> Image.Image:
    """Make one image of a patient: pose, disease, exposure, frame, grain.

    Args:
        anatomy: of the patient.
        label: one of ``naming.KAGGLE_CLASSES``; decides the disease.
        rng: source of everything that varies between the images of a patient.

    Returns:
        8-bit grey image, with SYNTHETIC written into its upper left corner.
    """
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


def _lungs(anatomy: Anatomy, x: Array, y: Array, breath: float) -> Array:
    """Share of air in [0, 1]: between chest wall, mediastinum and diaphragm."""
    middle = 0.5 * (anatomy.apex + anatomy.dome)
    reach = anatomy.dome - anatomy.apex
    wall = anatomy.chest * np.sqrt(np.clip(1 - ((y - middle - 0.3) / (0.98 * reach)) ** 2, 0.0, 1))
    floor = anatomy.dome + breath - anatomy.dome_height * np.cos(4.4 * (np.abs(x) - 0.3))
    floor -= 0.05 * (x < 0)
    side = np.abs(x)
    inside = _step((wall - side) * 40) * _step((side - 0.1 - 0.03 * y) * 34)
    below_apex = _step((y - anatomy.apex - 0.9 * (side - 0.28) ** 2) * 30)
    return inside * below_apex * _step((floor - y) * 34)


def _thorax(anatomy: Anatomy, x: Array, y: Array, lungs: Array, breath: float) -> Array:
    """Attenuation of everything except vessels and disease."""
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
    """Branches of the hila, fading outwards, so that streaks alone do not reveal a class."""
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


def _disease(anatomy: Anatomy, label: str, x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Attenuation that the disease adds in the lungs."""
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
    """Fine irregular lines with zero mean: the zero crossings of noise at two scales."""
    coarse, fine = _noise(rng, cells), _noise(rng, 2 * cells)
    lines: Array = np.exp(-8 * coarse * coarse) + 0.7 * np.exp(-6 * fine * fine)
    lines -= lines.mean()
    return lines


def _step(position: Array) -> Array:
    """The logistic function; computed with tanh, which numpy vectorises."""
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
    """Smooth noise with unit scale and ``cells`` cells per side."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC))
