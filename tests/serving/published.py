"""Versions in a bucket, as a pipeline publishes them."""

from pathlib import Path

from cxr_serving.model import store
from cxr_serving.model.bundle import POINTER_FILE
from cxr_serving.model.remote import Bucket
from cxr_serving.model.replica import SUFFIX, send


def upload(bucket: Bucket, directory: Path, root: Path, point: bool = True) -> str:
    """Put a bundle below ``root`` into the bucket, then the pointer beside it; returns its key."""
    key = f"{directory.relative_to(root).as_posix()}{SUFFIX}"
    send(bucket, key, directory, bucket.etag(key))
    if point:
        upload_pointer(bucket, directory, root)
    return key


def upload_pointer(bucket: Bucket, directory: Path, root: Path) -> None:
    """Have the pointer in the bucket name a bundle."""
    store.write_pointer(directory.parent, directory.name)
    key = f"{directory.parent.relative_to(root).as_posix()}/{POINTER_FILE}"
    bucket.write(key, (directory.parent / POINTER_FILE).read_bytes(), bucket.etag(key))
