"""``cxr data forget``: a patient who withdrew consent leaves everything below the data root."""

import difflib
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from pydantic import ValidationError

from cxr_assets import exchange, written
from cxr_assets.evaluation.removal import remove_absent, tables
from cxr_assets.layout import Layout
from cxr_assets.learning import cache
from cxr_assets.progress import Progress, StorageError, held
from cxr_assets.radiographs import dataset, membership, preparation, raw, removal, withdrawal
from cxr_assets.radiographs.dataset import DatasetError
from cxr_assets.radiographs.membership import MembershipError
from cxr_assets.radiographs.naming import pseudonym
from cxr_assets.radiographs.withdrawal import WithdrawalError
from cxr_assets.settings import SettingsError, load
from cxr_serving.model.remote_errors import RemoteError
from cxr_serving.model.report import ReportError

# Of names that differ in a letter or two.
_SIMILAR = 0.8


class UnknownPatient(Exception):
    """No patient has that name, or several have; the message says what to do."""


@dataclass
class Forgotten:
    """What was done for a patient.

    Attributes:
        patient: ``<source>/<patient as the source has it>``.
        new: whether the patient was not on record.
        images: sha256 of the patient's image files, as far as they are known.
        prepared: images that left the dataset now.
        embedded: embeddings that were deleted now, of every backbone.
        reports: reports that listed or showed them until now.
        trained: how many of the images each bundle and release knows, by split.
        unclear: bundles and releases that do not say which images they know.
        aside: datasets that were set aside and hold the images.
        running: locks of trainings that run now, and may hold the images in memory.
    """

    patient: str
    new: bool
    images: frozenset[str]
    prepared: int = 0
    embedded: int = 0
    reports: list[Path] = field(default_factory=list)
    trained: dict[Path, dict[str, int]] = field(default_factory=dict)
    unclear: list[Path] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)
    running: list[Path] = field(default_factory=list)


def forget(layout: Layout, name: str, progress: Progress, now: datetime) -> Forgotten:
    """Record that a patient withdrew consent, and remove the patient's images.

    The record comes first and knows the images, so that after an interruption the same call does
    what is left; repeated, it changes nothing.

    Args:
        layout: what lies below its root is changed; the files of sources are not.
        name: of the patient as the source has it, or ``<source>/<name>``.
        progress: called with a line before it waits for another process.
        now: aware time, for the record.

    Raises:
        UnknownPatient: nothing has changed.
        WithdrawalError: the record is broken; nothing has changed.
        DatasetError: the dataset is broken; the patient is on record.
        ReportError: a report cannot be changed; everything else is done.
    """
    with (
        held(layout.raw_lock, "images are being collected", progress),
        held(layout.processed_lock, "images are being prepared", progress),
    ):
        rows = _rows(layout)
        patient = _find(name, {*rows["patient"], *withdrawal.withdrawn(layout)})
        found = rows.loc[rows["patient"] == patient, "sha256"].dropna()
        done = Forgotten(patient, withdrawal.record(layout, patient, found, now), frozenset())
        done.images = withdrawal.read(layout)[patient].images
        written.remove_leftovers(
            layout.processed, functools.partial(written.foreign, kind=preparation.KIND)
        )
        done.prepared = removal.remove(layout, done.images)
        done.embedded = cache.forget(layout, done.images, progress)
        done.trained, done.unclear = _trained(layout, done.images)
        done.aside = list(_aside(layout, done.images))
        done.running = [path for path in layout.root.glob("work/*.lock") if _held(path)]
        done.reports = remove_absent(layout, progress)
    return done


def forget_absent(layout: Layout, progress: Progress) -> tuple[int, list[Path]]:
    """Remove images that left the dataset from embeddings and reports as well.

    Call this when the dataset has been prepared: a patient whose rows or files were removed may
    have withdrawn consent. Embeddings of images that are no longer kept are made again if these
    return.

    Returns:
        The number of embeddings, and the reports.

    Raises:
        DatasetError: there is no dataset.
        WithdrawalError: the record of withdrawals is broken.
        ReportError: a report cannot be changed; everything else is done.
    """
    kept = frozenset(dataset.manifest(layout.processed).query("kept")["sha256"])
    return cache.retain(layout, kept.__contains__, progress), remove_absent(layout, progress)


def _rows(layout: Layout) -> pd.DataFrame:
    """``patient`` and ``sha256`` of all images that inventory, dataset and reports name."""
    parts = [pd.DataFrame(columns=["patient", "sha256"], dtype=object)]
    if (images := raw.load(layout)) is not None:
        parts.append(images.inventory)
    if layout.processed.exists():
        parts.append(dataset.manifest(layout.processed).query("kept"))
    parts += [table for table in tables(layout) if "patient" in table]
    rows = pd.concat([part[["patient", "sha256"]] for part in parts])
    return rows[rows["patient"].notna()].drop_duplicates()


def _find(name: str, patients: set[str]) -> str:
    source, slash, rest = name.partition("/")
    whole = f"{source}/{pseudonym(rest)}" if slash else name
    matching = sorted({name, whole} & patients) or sorted(
        patient for patient in patients if patient.partition("/")[2] in {name, pseudonym(name)}
    )
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UnknownPatient(
            f"{len(matching)} sources have a patient of that name: say which, "
            f"{' or '.join(matching)}"
        )
    near = sum(_similar(name, patient) for patient in patients)
    raise UnknownPatient(
        f"none of the {len(patients):,} patients that inventory, dataset and reports know is "
        f"named {name!r}, and {near} have a similar name: type it as the source has it, with the "
        "same capitals and zeros. Nothing was changed"
    )


def _similar(name: str, patient: str) -> bool:
    """Whether two names may be one, misspelled; with the source or without."""
    return any(
        difflib.SequenceMatcher(None, name.casefold(), other.casefold()).ratio() >= _SIMILAR
        for other in (patient, patient.partition("/")[2])
    )


def _trained(
    layout: Layout, images: frozenset[str]
) -> tuple[dict[Path, dict[str, int]], list[Path]]:
    """How many of the images each bundle and release knows, by split; those that do not say."""
    trained, unclear = {}, []
    for directory in reversed(layout.published()):
        try:
            rows = membership.read(directory)
        except MembershipError:
            unclear.append(directory)
            continue
        counts = rows.loc[rows["sha256"].isin(images), "split"].value_counts()
        if len(counts):
            trained[directory] = {str(split): int(n) for split, n in counts.items()}
    return trained, unclear


def _aside(layout: Layout, images: frozenset[str]) -> Iterator[Path]:
    """Datasets that were set aside, because they are broken or hold files of somebody else."""
    name = layout.processed.name
    for path in (layout.root / f"{name}.broken", *layout.set_aside.glob(f"{name}-*")):
        if not path.exists():
            continue
        try:
            if dataset.manifest(path).query("kept")["sha256"].isin(images).any():
                yield path
        except (DatasetError, KeyError):
            yield path  # it does not say


def _held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def main(patient: str) -> None:
    """Forget a patient and print what was done; exit with 1 if something is left to do."""
    progress = functools.partial(print, file=sys.stderr, flush=True)
    try:
        layout = load().layout
        with exchange.exchanged(layout, progress):
            done = forget(layout, patient, progress, datetime.now(UTC))
    except (
        *(SettingsError, StorageError, RemoteError),
        *(UnknownPatient, WithdrawalError, DatasetError, ReportError),
    ) as error:
        sys.exit(f"error: {error}")
    except (OSError, ValidationError) as error:
        sys.exit(f"error: {error}: make it readable and writable, then run the same again")
    sys.stdout.write("\n".join([*_lines(layout, done), ""]))


def _lines(layout: Layout, done: Forgotten) -> Iterator[str]:
    when = "is now" if done.new else "was already"
    yield f"The withdrawal of {done.patient} {when} on record: {layout.withdrawn}"
    yield f"Image files of the patient that are known: {len(done.images)}. Removed now:"
    yield f"  from the dataset     {done.prepared} images"
    yield f"  from embeddings      {done.embedded}"
    yield f"  from reports         {', '.join(path.name for path in done.reports) or 'none'}"
    yield ""
    if done.trained:
        yield "Models trained, selected or tested with these images, which still exist:"
        for directory, splits in done.trained.items():
            images = ", ".join(f"{number} in {split}" for split, number in splits.items())
            yield f"  {directory.relative_to(layout.root)}: {images}"
        yield "The next run trains without them. Delete these models if the withdrawal covers them."
    else:
        yield "No bundle or release knows these images."
    for directory in done.unclear:
        yield f"{directory} does not say which images it knows."
    for path in done.aside:
        yield f"{path} may hold the images: delete it."
    for path in done.running:
        yield (
            f"A training runs now and may hold the images in memory: stop it, then delete "
            f"{path.with_suffix('')}"
        )
    yield ""
    yield "Not touched: the files and tables of the sources, downloads in " + str(layout.raw) + ","
    yield "reports of cxr evaluate, what was uploaded, and names in logs. See docs/data.md."
