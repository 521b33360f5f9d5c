"""Signs that a patient is in two splits, independent of the name parser that made the splits."""

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxr_assets.radiographs import dataset
from cxr_assets.radiographs.naming import EXTERNAL
from cxr_assets.radiographs.nearby import Positions, groups

# Copies saved again at JPEG quality 30, at half size or with 40 grey levels added have a similarity
# of at least .91. The maximum over 13.6 million pairs of real images of different patients is .59,
# of synthetic images .88. (On the same real pairs, 64-bit pHash has 9 at distance 2 and dHash 305
# at distance 0: at that scale all chests look the same.)
SIMILAR = 0.9

REMEDY = (
    "patients seem to have images in two splits: look at each pair, remove one image from its "
    "source, or name the same patient for both in a table, then materialise raw_kaggle and "
    "processed_dataset again"
)

_SIDE = 32
_SIGMA = 1.0
# In squared grey levels: structure fainter than two levels is noise and is not amplified.
_FLOOR = 4.0
_BATCH = 256
_BLOCK = 512

_COPY = r"(?<![^\W\d_])(?:copy|kopie|kopia|kopi|copie|copia|cópia|копия|コピー|副本)(?![^\W\d_])"
_COPY_IN_BRACKETS = re.compile(rf"\([^()]*{_COPY}[^()]*\)")
_COPY_IN_WORDS = re.compile(
    rf"{_COPY}(?:[\W_]*\d\d?(?!\d)\)?)?(?:[\W_]+(?:of|von|van|de|di|af|av)(?![^\W\d_]))?"
)
_CAUSES = ("bacteria", "virus")
_COPY_BY_NUMBER = re.compile(r"\s*(?:\(\d+\)|(?<=\d)\s\d)$")


class Pair(NamedTuple):
    """Two images in different splits that seem to be of one patient.

    Attributes:
        first, second: source and path, as in the manifest.
        why: what they have in common, as text.
    """

    first: str
    second: str
    why: str


def pairs_across_splits(directory: Path) -> list[Pair]:
    """All pairs of images that suggest a patient is in two splits of the processed dataset.

    Raises:
        DatasetError: there is no dataset, or one of its images cannot be read.
    """
    record = dataset.DatasetRecord.read(directory)
    images = dataset.manifest(directory).query("kept")
    by_manifest = []
    for _, group in images.groupby("patient"):
        by_manifest += _across(_rows(group), "same patient in the manifest")
    named = images[~images["source"].isin(record.tables)]
    return [*by_manifest, *by_name(named), *by_image(directory, images, record.image_size)]


def by_name(images: pd.DataFrame) -> list[Pair]:
    """Pairs across splits whose file names suggest one patient.

    Either one name marks a copy of the other, or both are Kaggle's names with the same number.
    Names are compared within a source and a class, and case-insensitively.

    Args:
        images: columns ``source``, ``path``, ``split`` and ``class``; none of a table, where names
            of files say nothing of a patient.
    """
    pairs = []
    for _, group in images.groupby(["source", "class"]):
        names = [_plain(PurePosixPath(path).stem) for path in group["path"]]
        numbered: dict[tuple[str, int], list[int]] = defaultdict(list)
        copies: dict[str, list[int]] = defaultdict(list)
        originals = _originals(names)
        for index, name in enumerate(names):
            copies[originals[index]].append(index)
            if (number := _kaggle_number(name)) is not None:
                numbered[number].append(index)
        rows = _rows(group)
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
    """Pairs across splits that show the same image, though not the same pixels.

    The descriptor of an image is its fine structure at 32 x 32 pixels: local mean subtracted,
    divided by local standard deviation, class mean subtracted, so that pose and exposure matter
    little. Similarity is the correlation of two descriptors. It finds images that were saved again,
    resized, changed in brightness or contrast, cropped by up to 1 %, or rotated by up to 1 degree.
    It does not find flipped images, or images cropped or rotated by more. Among more than 20,000
    images, up to one in a thousand of the pairs that are barely similar enough are overlooked.

    Args:
        directory: the processed dataset.
        images: rows of its manifest, all kept.
        size: side of every image, in pixels.

    Raises:
        DatasetError: an image cannot be read.
    """
    names = [name for name, _ in _rows(images)]
    return [
        Pair(names[first], names[second], f"similarity of the images {similarity:.2f}")
        for first, second, similarity in similar(directory, images, size, within_splits=False)
    ]


def similar(
    directory: Path, images: pd.DataFrame, size: int, *, within_splits: bool
) -> list[tuple[int, int, float]]:
    """Pairs of images that show the same image, as :func:`by_image` finds them.

    Args:
        directory, images, size: as for :func:`by_image`.
        within_splits: whether to look for pairs in one split, too.

    Returns:
        Positions of both images, and their similarity.

    Raises:
        DatasetError: an image cannot be read.
    """
    digests = []
    described = np.empty((len(images), _SIDE**2), np.float32)
    for start in range(0, len(images), _BATCH):
        pixels = dataset.read(directory, images["file"].iloc[start : start + _BATCH], size)
        digests += [sha256(one).digest() for one in pixels]
        described[start : start + _BATCH] = _describe(pixels)
    # Numbers compare faster than hashes.
    content, _ = pd.factorize(np.array(digests, dtype=object))
    return _similar(images, content, described, within_splits)


def _similar(
    images: pd.DataFrame,
    content: npt.NDArray[np.intp],
    described: npt.NDArray[np.float32],
    within_splits: bool,
) -> list[tuple[int, int, float]]:
    splits, names = pd.factorize(images["split"])
    # Each pair of splits once, and not those that are reported alone: nothing leaks.
    compared = np.triu(np.ones((len(names), len(names)), bool), 0 if within_splits else 1)
    alone = names.isin(["test", EXTERNAL])
    compared &= np.eye(len(names), dtype=bool) | ~(alone[:, None] & alone)
    order = np.argsort(splits, kind="stable")
    splits, content, labels = splits[order], content[order], images["class"].to_numpy()[order]
    found: dict[tuple[int, int], float] = {}
    for label in pd.unique(labels):
        # Neither here nor below is there a copy of more than a block: descriptors are 4 kB each.
        typical = described.mean(axis=0, where=(images["class"] == label).to_numpy()[:, None])

        def unit(places: Positions, typical: Any = typical) -> npt.NDArray[np.float32]:
            vectors: npt.NDArray[np.float32] = described[order[places]] - typical
            lengths = np.sqrt(np.einsum("ns,ns->n", vectors, vectors))
            vectors /= np.maximum(lengths, 1e-6)[:, None]
            return vectors

        for group in groups(unit, len(images), SIMILAR):
            left, right = _blocks(group[labels[group] == label]), _blocks(group)
            for ours, theirs in itertools.product(left, right):
                rows, columns = (slice(splits[p[0]], splits[p[-1]] + 1) for p in (ours, theirs))
                if theirs[-1] <= ours[0] or not compared[rows, columns].any():
                    continue
                similarity = unit(ours) @ unit(theirs).T
                # Blank images have no structure to compare, but may be identical.
                similarity[content[ours][:, None] == content[theirs]] = 1
                for row, column in np.argwhere(similarity >= SIMILAR):
                    first, second = int(ours[row]), int(theirs[column])
                    if first < second and compared[splits[first], splits[second]]:
                        pair = int(order[first]), int(order[second])
                        found[pair] = float(similarity[row, column])
    return [(*pair, similarity) for pair, similarity in sorted(found.items())]


def _blocks(places: Positions) -> Iterator[Positions]:
    for start in range(0, len(places), _BLOCK):
        yield places[start : start + _BLOCK]


def _describe(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Fine structure of images uint8 [N, size, size]: float32 [N, 1024], each of mean 0."""
    small = (Image.fromarray(one).resize((_SIDE, _SIDE), Image.Resampling.BOX) for one in pixels)
    fine = np.stack([np.asarray(one, dtype=np.float32) for one in small])
    fine = fine - gaussian_filter(fine, _SIGMA, axes=(1, 2))
    fine = fine / np.sqrt(gaussian_filter(fine * fine, _SIGMA, axes=(1, 2)) + _FLOOR)
    described: npt.NDArray[np.float32] = fine.reshape(len(fine), -1)
    described -= described.mean(axis=1, keepdims=True)
    return described


def _plain(stem: str) -> str:
    return unicodedata.normalize("NFKC", stem).casefold().strip()


def _originals(names: list[str]) -> list[str]:
    """Each name without the marks of a copy.

    A word like "copy" always is a mark. A number at the end is one only if there is a file without
    it, because Windows numbers different files as "normal (1)", "normal (2)", ...
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
    """Cause or series, and number of the patient; None if the name is not one of Kaggle's."""
    tokens = re.findall(r"[^\W\d_]+|\d+|[\W_]", name)
    for place, word in enumerate(tokens):
        match tokens[place + 1 : place + 3]:
            case [number, "_"] if word == "person" and number.isdecimal():
                # Numbers repeat between the causes, which may be of one class here.
                cause = next((token for token in tokens[place:] if token in _CAUSES), "")
                return cause, int(number)
            case ["-", number] if word == "im" and number.isdecimal():
                series = "".join(tokens[max(0, place - 3) : place])
                return series if re.fullmatch(r"normal\d+-", series) else "", int(number)
    return None


def _rows(images: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and split of each image."""
    names = images["source"] + "/" + images["path"]
    return list(zip(names, images["split"], strict=True))


def _across(rows: list[tuple[str, str]], why: str) -> list[Pair]:
    """The first image, paired with the first one of each other split."""
    first, split = rows[0]
    seen = {split}
    pairs = []
    for path, other in rows[1:]:
        if other not in seen:
            seen.add(other)
            pairs.append(Pair(first, path, why))
    return pairs
