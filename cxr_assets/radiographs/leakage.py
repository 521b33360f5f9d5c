"""What shows that a patient is in two splits, found without the parser that the split rests on."""

import itertools
import re
import unicodedata
from collections import defaultdict
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxr_assets.radiographs import dataset

# Copies that were saved again at JPEG quality 30, halved, or changed by 40 grey levels have a
# similarity of .91 and more, the most alike of 13.6 million pairs of real images of different
# patients .59, of synthetic images .88. (On the real ones 64-bit pHash has 9 such pairs at distance
# 2 and dHash 305 at distance 0: at that scale all chests look the same.)
SIMILAR = 0.9

REMEDY = (
    "patients seem to have images in two splits: look at each pair, remove one of its images from "
    "the source or move both to one split, and materialise raw_kaggle and processed_dataset again"
)

_SIDE = 32
_SIGMA = 1.0
# In squared grey levels: what is fainter than two of them is noise, and is not amplified.
_FLOOR = 4.0
_BATCH = 256
_BLOCK = 2048

_COPY = r"(?<![^\W\d_])(?:copy|kopie|kopia|kopi|copie|copia|cópia|копия|コピー|副本)(?![^\W\d_])"
_COPY_IN_BRACKETS = re.compile(rf"\([^()]*{_COPY}[^()]*\)")
_COPY_IN_WORDS = re.compile(
    rf"{_COPY}(?:[\W_]*\d\d?(?!\d)\)?)?(?:[\W_]+(?:of|von|van|de|di|af|av)(?![^\W\d_]))?"
)
_COPY_BY_NUMBER = re.compile(r"\s*(?:\(\d+\)|(?<=\d)\s\d)$")


class Pair(NamedTuple):
    """Two images in different splits that seem to be of one patient.

    Attributes:
        first, second: the source paths, as in the manifest.
        why: what they have in common, in words.
    """

    first: str
    second: str
    why: str


def pairs_across_splits(directory: Path) -> list[Pair]:
    """All that shows a patient to be in two splits of the processed dataset.

    Raises:
        DatasetError: there is no dataset, or an image of it cannot be read.
    """
    images = dataset.manifest(directory).query("kept")
    by_manifest = []
    for _, group in images.groupby("patient"):
        rows = list(zip(group["path"], group["split"], strict=True))
        by_manifest += _across(rows, "same patient in the manifest")
    size = dataset.DatasetRecord.read(directory).image_size
    return [*by_manifest, *by_name(images), *by_image(directory, images, size)]


def by_name(images: pd.DataFrame) -> list[Pair]:
    """Pairs across splits whose file names tell of one patient.

    That is where one name is that of a copy of the other, or both are Kaggle's and have the same
    number. Names are compared within a class, without regard to case.

    Args:
        images: columns ``path``, ``split`` and ``class``.
    """
    pairs = []
    for _, group in images.groupby("class"):
        names = [_plain(PurePosixPath(path).stem) for path in group["path"]]
        numbered: dict[tuple[str, int], list[int]] = defaultdict(list)
        copies: dict[str, list[int]] = defaultdict(list)
        originals = _originals(names)
        for index, name in enumerate(names):
            copies[originals[index]].append(index)
            if (number := _kaggle_number(name)) is not None:
                numbered[number].append(index)
        rows = list(zip(group["path"], group["split"], strict=True))
        for members in numbered.values():
            pairs += _across([rows[index] for index in members], "same number in the name")
        for original, members in copies.items():
            marked = [index for index in members if names[index] != original]
            home = {rows[index][1] for index in members if names[index] == original}
            for index in marked:
                if original and rows[index][1] not in home:
                    others = [rows[other] for other in members if other != index]
                    pairs += _across([rows[index], *others], "name of a copy")[:1]
    return pairs


def by_image(directory: Path, images: pd.DataFrame, size: int) -> list[Pair]:
    """Pairs across splits that show the same image, if not the same pixels.

    An image is described by its fine structure: reduced to 32 x 32, less its local mean and over
    its local standard deviation, less what all images of the class have in common, so that pose and
    exposure count little. Similarity is the correlation of two descriptions. It finds what was
    saved again, resized, or changed in brightness and contrast, also cropped or turned by as little
    as 1 % or 1 degree; it does not find what was mirrored, or cropped or turned by more.

    Args:
        directory: the processed dataset.
        images: rows of its manifest, all kept.
        size: side of every image, in pixels.

    Raises:
        DatasetError: an image cannot be read.
    """
    digests, described = [], []
    for start in range(0, len(images), _BATCH):
        pixels = dataset.read(directory, images["file"].iloc[start : start + _BATCH], size).numpy()
        digests += [sha256(one).hexdigest() for one in pixels]
        described.append(_describe(pixels))
    return _similar(images, np.array(digests), np.concatenate(described))


def _similar(
    images: pd.DataFrame, digests: npt.NDArray[np.str_], described: npt.NDArray[np.float32]
) -> list[Pair]:
    paths, splits, labels = (images[name].to_numpy() for name in ("path", "split", "class"))
    pairs = []
    for label in pd.unique(labels):
        typical = described[labels == label].mean(axis=0)
        for one, other in itertools.combinations(pd.unique(splits), 2):
            left = np.flatnonzero((splits == one) & (labels == label))
            right = np.flatnonzero(splits == other)
            unit = _unit(described[right] - typical)
            for start in range(0, len(left), _BLOCK):
                block = left[start : start + _BLOCK]
                similarity = _unit(described[block] - typical) @ unit.T
                # A blank image has no structure to compare, but may be the same.
                similarity[digests[block][:, None] == digests[right][None]] = 1
                for row, column in np.argwhere(similarity >= SIMILAR):
                    why = f"similarity of the images {similarity[row, column]:.2f}"
                    pairs.append(Pair(paths[block[row]], paths[right[column]], why))
    return pairs


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each of mean 0 and length 1, so that their products are correlations."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = centred / np.maximum(
        np.linalg.norm(centred, axis=1, keepdims=True), 1e-6
    )
    return unit


def _describe(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Fine structure of images uint8 [N, size, size]: float32 [N, 1024]."""
    small = (Image.fromarray(one).resize((_SIDE, _SIDE), Image.Resampling.BOX) for one in pixels)
    fine = np.stack([np.asarray(one, dtype=np.float32) for one in small])
    fine = fine - gaussian_filter(fine, _SIGMA, axes=(1, 2))
    fine = fine / np.sqrt(gaussian_filter(fine * fine, _SIGMA, axes=(1, 2)) + _FLOOR)
    described: npt.NDArray[np.float32] = fine.reshape(len(fine), -1)
    return described


def _plain(stem: str) -> str:
    return unicodedata.normalize("NFKC", stem).casefold().strip()


def _originals(names: list[str]) -> list[str]:
    """Each name without the marks of a copy.

    A word like "copy" is always one; a number behind a name only where a file of the name without
    it is there, because "normal (1)", "normal (2)", ... are how Windows numbers different files.
    """
    known = set(names)
    originals = []
    for name in names:
        worded = _COPY_IN_WORDS.sub(" ", _COPY_IN_BRACKETS.sub(" ", name))
        original = shorter = worded.strip(" -_~") if worded != name else name
        while (cut := _COPY_BY_NUMBER.sub("", shorter)) != shorter:
            shorter = cut
            original = shorter if shorter in known else original
        originals.append(original)
    return originals


def _kaggle_number(name: str) -> tuple[str, int] | None:
    """Series and number of the patient, token by token; None in a name that is not Kaggle's."""
    tokens = re.findall(r"[^\W\d_]+|\d+|[\W_]", name)
    for place, word in enumerate(tokens):
        match tokens[place + 1 : place + 3]:
            case [number, "_"] if word == "person" and number.isdecimal():
                return word, int(number)
            case ["-", number] if word == "im" and number.isdecimal():
                series = "".join(tokens[max(0, place - 3) : place])
                return series if re.fullmatch(r"normal\d+-", series) else "", int(number)
    return None


def _across(rows: list[tuple[str, str]], why: str) -> list[Pair]:
    """The first image, beside the first one of each other split."""
    first, split = rows[0]
    seen = {split}
    pairs = []
    for path, other in rows[1:]:
        if other not in seen:
            seen.add(other)
            pairs.append(Pair(first, path, why))
    return pairs
