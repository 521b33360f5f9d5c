"""The PNGs of many images, written on this machine or elsewhere."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs.decoding import Decoder, DecodingError, Written
from cxr_assets.radiographs.threads import in_order
from cxr_serving.model import processors

Writer = Callable[[pd.DataFrame, int, Progress], list[Written]]
"""Writes the PNGs of images, as :func:`write_here` does."""


def write_here(images: pd.DataFrame, size: int, progress: Progress) -> list[Written]:
    """Write the PNGs of images, on all processors of this machine.

    Args:
        images: ``source``, the path of a file, its ``sha256``, and ``target``, the path of the PNG;
            all of them text.
        size: side of the square PNGs, in pixels.
        progress: called with a line per 1,000 images.

    Returns:
        What became of each, in the order of ``images``.

    Raises:
        DecodingError: a file has changed, or DICOM is not read on this machine.
    """
    done: list[Written] = []
    columns = (images[name] for name in ("source", "sha256", "target"))
    with Decoder(size) as decoder, ThreadPoolExecutor(processors.count()) as pool:

        def write(source: str, sha256: str, target: str) -> Written:
            return decoder.write(Path(source), sha256, Path(target))

        try:
            for one in in_order(pool, write, *columns):
                done.append(one)
                if len(done) % 1000 == 0:
                    progress(f"prepared {len(done):,} of {len(images):,} images")
        except DecodingError:
            pool.shutdown(cancel_futures=True)
            raise
    return done
