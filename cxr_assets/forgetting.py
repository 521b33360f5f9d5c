"""``cxr data forget``: a patient who withdrew consent leaves everything below the data root."""

import difflib
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from cxr_assets import written
from cxr_assets.evaluation.removal import remove_departed, tables
from cxr_assets.layout import Layout
from cxr_assets.learning import embeddings
from cxr_assets.learning.plan import RECIPES
from cxr_assets.progress import Progress
from cxr_assets.radiographs import dataset, membership, preparation, raw, removal, withdrawal
from cxr_assets.radiographs.dataset import DatasetError
from cxr_assets.radiographs.membership import MembershipError
from cxr_serving.model import store

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
    with _alone(layout.raw_lock, progress), _alone(layout.processed_lock, progress):
        rows = _rows(layout)
        patient = _find(name, {*rows["patient"], *withdrawal.withdrawn(layout)})
        found = rows.loc[rows["patient"] == patient, "sha256"].dropna()
        done = Forgotten(patient, withdrawal.record(layout, patient, found, now), frozenset())
        done.images = withdrawal.read(layout)[patient].images
        written.remove_leftovers(
            layout.processed, functools.partial(written.foreign, kind=preparation.KIND)
        )
        done.prepared = removal.remove(layout, done.images)
        done.embedded = embeddings.forget(layout, done.images)
        done.trained, done.unclear = _trained(layout, done.images)
        done.aside = list(_aside(layout, done.images))
        done.running = [path for path in layout.root.glob("work/*.lock") if _held(path)]
        done.reports = remove_departed(layout)
    return done


def forget_departed(layout: Layout) -> tuple[int, list[Path]]:
    """Remove what left the dataset from embeddings and reports, too.

    Call this when the dataset has been prepared: a patient whose rows or files are gone may have
    withdrawn consent. Embeddings of images that are no longer kept are made again if they return.

    Returns:
        The number of embeddings, and the reports.

    Raises:
        DatasetError: there is no dataset.
        WithdrawalError: the record of withdrawals is broken.
        ReportError: a report cannot be changed; everything else is done.
    """
    kept = frozenset(dataset.manifest(layout.processed).query("kept")["sha256"])
    return embeddings.retain(layout, kept.__contains__), remove_departed(layout)


@contextmanager
def _alone(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a lock of the preparation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress(f"images are being collected or prepared in another process: waiting for {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
    matching = sorted({name} & patients) or sorted(
        patient for patient in patients if patient.partition("/")[2] == name
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
    for place in (*(layout.models(asset) for asset in RECIPES), layout.releases):
        for version in store.versions(place):
            try:
                rows = membership.read(place / version)
            except MembershipError:
                unclear.append(place / version)
                continue
            counts = rows.loc[rows["sha256"].isin(images), "split"].value_counts()
            if len(counts):
                trained[place / version] = {str(split): int(n) for split, n in counts.items()}
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
