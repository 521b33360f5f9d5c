"""What models answer to the images: each image is decoded once for all models that can share it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_serving.images.reader import ImageReader
from cxr_serving.model.predictor import Answers, Predictor
from cxr_serving.model.preprocessing import Decoded, ImageError, Preprocessing
from cxr_serving.model.report import ReportError

_BATCH = 64

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
# Called with the pixels of a batch, and the answers to it.
Observer = Callable[[Pixels, Answers], None]


def predict(
    predictors: Sequence[Predictor],
    paths: Sequence[Path],
    observe: Observer,
    colour: Sequence[float] | None = None,
) -> list[Scores]:
    """Classify images by several models, in batches; no more than one batch is held in memory.

    Models with the same preprocessing share one pass over the images.

    Args:
        predictors: M models.
        paths: N JPEG, PNG or DICOM files.
        observe: called with each batch of the first model, in the order of ``paths``: pixels uint8
            [64 or fewer, size, size], and what :meth:`Predictor.answer` returns for them.
        colour: of the files that ``paths`` are grey copies of, NaN of those that are none.

    Returns:
        For each model calibrated probabilities, float32 [N, C].

    Raises:
        ReportError: an image cannot be read.
    """
    answers: list[list[Scores]] = [[] for _ in predictors]
    for preprocessing in dict.fromkeys(predictor.preprocessing for predictor in predictors):
        sharing = [
            index
            for index, predictor in enumerate(predictors)
            if predictor.preprocessing == preprocessing
        ]
        seen = 0
        for pixels, tints in _batches(preprocessing, paths):
            if colour is not None:
                tints = np.fmax(tints, colour[seen : seen + len(tints)]).tolist()
            seen += len(tints)
            for index in sharing:
                found = predictors[index].answer(pixels, tints)
                answers[index].append(found.probabilities)
                if index == 0:
                    observe(pixels, found)
    return [np.concatenate(of_model) for of_model in answers]


def _batches(
    preprocessing: Preprocessing, paths: Sequence[Path]
) -> Iterator[tuple[Pixels, list[float]]]:
    with closing(ImageReader()) as reader:
        for start in range(0, len(paths), _BATCH):
            some = paths[start : start + _BATCH]
            decoded = [_decode(reader, preprocessing, path) for path in some]
            yield np.stack([one.pixels for one in decoded]), [one.colour for one in decoded]


def _decode(reader: ImageReader, preprocessing: Preprocessing, path: Path) -> Decoded:
    try:
        return reader.read(path.read_bytes(), preprocessing)
    except (OSError, ImageError) as error:
        raise ReportError(
            f"{path} cannot be read ({error}): materialise processed_dataset again, or remove the "
            "file"
        ) from error
