"""``cxr data``: a patient is forgotten."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError

from cxr_assets.forgetting import Forgotten, UnknownPatient
from cxr_assets.forgetting import forget as forget_patient
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DatasetError
from cxr_assets.radiographs.withdrawal import WithdrawalError
from cxr_assets.settings import SettingsError, load
from cxr_serving.model.report import ReportError


def forget(patient: str) -> None:
    """Forget a patient and print what was done; exit with 1 if that is not all."""
    progress = partial(print, file=sys.stderr, flush=True)
    try:
        layout = load().layout
        done = forget_patient(layout, patient, progress, datetime.now(UTC))
    except (SettingsError, UnknownPatient, WithdrawalError, DatasetError, ReportError) as error:
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
