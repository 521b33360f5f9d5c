"""An unfinished training in a bucket: another machine resumes it when this one is gone for good."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_assets import lease
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_serving.model.atomic import write_file
from cxr_serving.model.remote import Bucket
from cxr_serving.model.remote_errors import UnreachableError
from cxr_serving.model.replica import SUFFIX, receive, send


@contextmanager
def resumed(layout: Layout, work: Path, progress: Progress) -> Iterator[Callable[[], None]]:
    """Have a training resume from what another machine has left of it, and leave what it does.

    One process at a time trains. What the body gets leaves the work folder in the bucket; while
    that does not answer, the training continues without. Nothing to do where the data root is a
    folder.

    Args:
        layout: of the data root.
        work: the work folder of the training.
        progress: called with a line for each thing that is unusual.

    Raises:
        ConflictError: another process has taken over, because this one was away for too long.
        RemoteError: the bucket cannot be used.
    """
    if layout.url is None:
        yield lambda: None
        return
    bucket, key, note = Bucket(layout.url), _key(work), _note(work)
    work.parent.mkdir(parents=True, exist_ok=True)
    busy = "the same training runs"
    with lease.held(bucket, f"locks/{work.name}.json", busy, progress) as ours:
        seen = bucket.etag(key)
        noted = note.read_text("utf-8") if note.exists() else None
        if seen is not None and not (work.exists() and noted == seen):
            progress(f"another machine has left {bucket.name(key)} of this training")
            # A training checks its checkpoints itself.
            seen = receive(bucket, key, work, lambda directory: None)
            write_file(note, seen.encode())

        def saved() -> None:
            try:
                ours.require()
                # What is there is our last one, even if the answer to that was lost.
                etag = send(bucket, key, work, bucket.etag(key))
            except UnreachableError as error:
                progress(f"this checkpoint is on this machine alone: {error}")
            else:
                write_file(note, etag.encode())

        yield saved


def ended(layout: Layout, work: Path) -> None:
    """Delete what the bucket has of a training whose work folder is gone: it was exported.

    What another process has left of the same training since then stays.

    Raises:
        RemoteError: the bucket cannot be used.
    """
    note = _note(work)
    if layout.url is not None and note.exists() and not work.exists():
        bucket = Bucket(layout.url)
        if bucket.etag(_key(work)) == note.read_text("utf-8"):
            bucket.delete(_key(work))
        note.unlink()


def _key(work: Path) -> str:
    return f"work/{work.name}{SUFFIX}"


def _note(work: Path) -> Path:
    """The etag of the object that agrees with the work folder."""
    return work.with_suffix(".etag")
