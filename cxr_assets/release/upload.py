"""The way of a release to the Hugging Face Hub, or to a hub of one's own (``HF_ENDPOINT``)."""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from cxr_serving import bundle
from cxr_serving.bundle import BundleRecord

logger = logging.getLogger(__name__)

# Seconds before each further try, after a fault that may pass: a lost connection, an ailing hub.
_WAITS = (5.0, 30.0)
# The errors of hf_xet, which sends large files, tell the hub's status in words only.
_XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")


class UploadError(Exception):
    """The release did not reach the hub; the message says why and what to do, never the token."""


def push(directory: Path, repo: str, token: str) -> str:
    """Make the main branch of a model repository equal to the release, in one commit and a tag.

    The repository is created, private, where it does not exist. Files that are there already are
    not sent again, files that the release does not have are deleted. The tag is the release's
    version; one that exists stays where it is. A fault that may pass is met by a few further
    tries, each of which sends only what is still missing.

    Args:
        directory: the release.
        repo: name of the repository, ``owner/name``.
        token: of an account that may write there; it appears in no log and no error.

    Returns:
        URL of the commit.

    Raises:
        BundleError: the release is broken; nothing was sent.
        UploadError: the hub cannot be reached or refuses.
    """
    record = bundle.verify(directory)
    api = HfApi(token=token)
    for wait in (*_WAITS, None):
        try:
            return _push(directory, record, repo, api)
        except Exception as error:  # noqa: BLE001 - it may hold the token: only its words go on
            status = _status(error)
            reason = _reason(error, status, repo, api.endpoint).replace(token, "***")
        passing = status is None or status in (408, 429) or status >= 500
        if wait is None or not passing:
            break
        logger.warning("%s; trying again in %g seconds", reason, wait)
        time.sleep(wait)
    raise UploadError(
        f"{directory} was not pushed to {repo}: {reason}. The release is whole on this machine; "
        "materialise hf_release again to push what is missing"
    )


def _push(directory: Path, record: BundleRecord, repo: str, api: HfApi) -> str:
    api.create_repo(repo, private=True, exist_ok=True)
    main = api.model_info(repo, revision="main", files_metadata=True)
    there = {file.rfilename: file.lfs and file.lfs.sha256 for file in main.siblings or ()}
    files = {**record.files, bundle.RECORD_FILE: ""}
    # Not upload_folder, which may make several commits of one push.
    commit = api.create_commit(
        repo,
        [
            # .gitattributes is the hub's own: it tells which files are stored as large ones.
            *map(CommitOperationDelete, sorted(there.keys() - files - {".gitattributes"})),
            *(
                CommitOperationAdd(name, directory / name)
                for name, sha256 in files.items()
                if there.get(name) != sha256
            ),
        ],
        commit_message=f"Release {record.version}",
        parent_commit=main.sha,
    )
    api.create_tag(repo, tag=record.version, revision=commit.oid, exist_ok=True)
    return str(commit.commit_url)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: Exception) -> int | None:
    """What the hub answered, which the client wraps in errors of its own; None if it did not."""
    for cause in _causes(error):
        if (response := getattr(cause, "response", None)) is not None:
            return int(response.status_code)
        if told := _XET_STATUS.search(str(cause)):
            return int(told[1])
    return None


def _reason(error: Exception, status: int | None, repo: str, endpoint: str) -> str:
    if status is None:
        *_, first = _causes(error)
        return f"{endpoint} could not be reached or broke off ({type(first).__name__}: {first})"
    overtaken = (
        f"someone else changed {repo} during the push, or the token may only propose changes "
        f"({status}): look at its commits"
    )
    refusals = {
        401: "the token is not valid (401): set HF_TOKEN to one that is",
        403: f"the token may not write to {repo} (403): it needs the write permission there",
        404: f"there is no {repo}, or the token may not see it (404): check CXR_HF_REPO",
        409: overtaken,
        412: overtaken,
    }
    return refusals.get(status, f"{endpoint} answered {status} ({error})")
