"""What the gate of the newest model finds among raw images that this model does not know."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_assets.evaluation.templates import TEMPLATES
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.radiographs import membership
from cxr_assets.radiographs.membership import MembershipError
from cxr_assets.radiographs.raw import RawImages
from cxr_assets.sampling import evenly
from cxr_serving.images.reader import ImageReader
from cxr_serving.model import processors, store
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import BundleError, BundleRecord
from cxr_serving.model.explanation import data_url, png
from cxr_serving.model.gate import DESCRIPTIONS
from cxr_serving.model.preprocessing import Decoded, ImageError

# Images that are judged at most, spread over the new ones: minutes on two cores at 224 pixels. The
# next report judges all that are kept.
_MOST = 2000
_BATCH = 32
# Images that the page shows; it lists the others.
_SHOWN = 100


class _NothingToJudge(Exception):
    """No image can or needs to be judged; the message says why."""


@dataclass(frozen=True)
class Screened:
    """What was found.

    Attributes:
        summary: what was judged by which model, or why nothing was, in words.
        rejected: one row per rejected image: ``source``, ``path``, ``sha256``, and ``reasons``
            joined by ``;``.
        page: of these images; None where there are none.
    """

    summary: str
    rejected: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["source", "path", "sha256", "reasons"])
    )
    page: Path | None = None


def screen(layout: Layout, images: RawImages, asset: str, progress: Progress) -> Screened:
    """Judge the images that the newest model was neither trained, selected nor tested on.

    The work is proportional to what is new: all others are in the label audit of its report.
    Nothing is left out for what is found, and no version of data or models depends on it.

    Args:
        layout: where models are; the page goes to ``layout.screened``.
        images: of the last :func:`cxr_assets.radiographs.raw.collect`.
        asset: whose newest bundle judges.
        progress: called with a line before images are judged.
    """
    layout.screened.unlink(missing_ok=True)
    try:
        directory = _newest(layout, asset)
        new = _new(images.inventory, directory)
        some = new.iloc[evenly(len(new), _MOST)]
        progress(f"the gate of {directory.name} judges {len(some):,} images")
        judged, pictures = _judge(images, some, directory)
    except _NothingToJudge as reason:
        return Screened(str(reason))
    except (BundleError, MembershipError) as error:
        return Screened(f"not judged: {error}")
    rejected = judged[judged["reasons"] != ""]
    summary = (
        f"of {len(new):,} images that the newest model, {directory.name}, does not know, its gate "
        f"judged {len(judged):,} and rejects {len(rejected):,}"
    )
    if unreadable := len(some) - len(judged):
        summary += f"; {unreadable:,} cannot be decoded"
    if rejected.empty:
        return Screened(summary)
    write_file(layout.screened, _page(summary, rejected, pictures, images.synthetic).encode())
    return Screened(summary, rejected, layout.screened)


def _newest(layout: Layout, asset: str) -> Path:
    version = store.read_pointer(layout.models(asset))
    if version is None:
        raise _NothingToJudge("not judged: there is no model yet whose gate could judge images")
    directory = layout.models(asset) / version
    if BundleRecord.read(directory).gate is None:
        raise _NothingToJudge(f"not judged: the newest model, {version}, has no gate")
    return directory


def _new(inventory: pd.DataFrame, directory: Path) -> pd.DataFrame:
    """Usable rows whose image the model does not know, each image once."""
    usable = inventory[inventory["problem"].isna()].drop_duplicates("sha256")
    new = usable[~usable["sha256"].isin(membership.read(directory)["sha256"])]
    if new.empty:
        raise _NothingToJudge(f"no image is new to the newest model, {directory.name}")
    return new


def _judge(
    images: RawImages, rows: pd.DataFrame, directory: Path
) -> tuple[pd.DataFrame, list[bytes]]:
    """The rows that can be decoded, with ``reasons``; and PNGs of the first that are rejected."""
    # Only a run with new images needs what computes.
    from cxr_serving.model.predictor import Predictor

    predictor, parts, pictures = Predictor(directory), [], list[bytes]()
    with closing(ImageReader()) as reader, ThreadPoolExecutor(processors.count()) as pool:

        def decode(source: str, path: str) -> Decoded | None:
            try:
                content = images.locate(source, path).read_bytes()
                return reader.read(content, predictor.preprocessing)
            except (OSError, ImageError):  # the preparation says why
                return None

        for start in range(0, len(rows), _BATCH):
            batch = rows.iloc[start : start + _BATCH]
            decoded = list(pool.map(decode, batch["source"], batch["path"]))
            readable = [one for one in decoded if one is not None]
            if not readable:
                continue
            pixels = np.stack([one.pixels for one in readable])
            verdicts = predictor.answer(pixels, [one.colour for one in readable]).verdicts or []
            pictures += [
                png(image)
                for image, verdict in zip(pixels, verdicts, strict=True)
                if not verdict.accepted
            ][: _SHOWN - len(pictures)]
            there = batch.loc[[one is not None for one in decoded], ["source", "path", "sha256"]]
            parts.append(there.assign(reasons=[one.listed for one in verdicts]))
    return pd.concat([Screened("").rejected, *parts], ignore_index=True), pictures


def _page(summary: str, rejected: pd.DataFrame, pictures: list[bytes], synthetic: bool) -> str:
    urls: list[str | None] = [data_url(picture) for picture in pictures]
    rows = rejected.assign(
        reasons=rejected["reasons"].str.split(";"),
        image=urls + [None] * (len(rejected) - len(urls)),
    )
    return TEMPLATES.get_template("screening.html.j2").render(
        summary=summary,
        synthetic=synthetic,
        rows=rows.to_dict("records"),
        descriptions=DESCRIPTIONS,
    )
