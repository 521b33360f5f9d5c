"""Upload of a release to the Hugging Face Hub, or to another hub (``HF_ENDPOINT``)."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)
from huggingface_hub.utils.sha import git_hash
from pydantic import ValidationError

from cxr_assets.release.card import CARD_FILE
from cxr_serving.model import bundle, store
from cxr_serving.model.bundle import BundleRecord

logger = logging.getLogger(__name__)

# Seconds before each retry, after a fault that may be temporary: a lost connection, a busy hub.
_WAITS = (5.0, 30.0)
_TIMEOUT = 30.0
# The errors of hf_xet, which sends large files, give the hub's status in their text only.
_XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")


class UploadError(Exception):
    """The release did not reach the hub; the message says why and what to do, never the token."""


class UnreachableError(UploadError):
    """The hub does not answer, or is busy: another attempt may help."""


@dataclass(frozen=True)
class Hub:
    """The repository that releases are pushed to.

    Attributes:
        push: pushes the release in a directory, and returns the URL of the commit; None where
            nothing is pushed.
        reason: why nothing is.
    """

    push: Callable[[Path], str] | None
    reason: str | None


def configured(repo: str | None) -> Hub:
    """The repository of ``CXR_HF_REPO``, with the token of the environment."""
    token = get_token()
    if repo is None:
        return Hub(None, "not pushed: CXR_HF_REPO is not set")
    if token is None:
        return Hub(None, "not pushed: no token (HF_TOKEN) is set")
    return Hub(partial(push, repo=repo, token=token), None)


def push(directory: Path, repo: str, token: str) -> str:
    """Put the release on the main branch of a model repository, in one commit and a tag.

    The repository is created, private, where it does not exist. Files that are there already are
    not sent again. A file that an earlier release put there, by its ``bundle.json``, and this one
    does not have is deleted unless somebody has changed it; other files stay. The tag is the
    release's version; one that exists stays where it is. A temporary fault is retried a
    few times, and each retry sends only what is still missing.

    Args:
        directory: the release.
        repo: name of the repository, ``owner/name``.
        token: of an account that may write there; it appears in no log and no error.

    Returns:
        URL of the commit.

    Raises:
        BundleError: the release is broken; nothing was sent.
        UnreachableError: the hub cannot be reached or is busy.
        UploadError: it rejects the release, or the repository has files of the same names from
            somebody else; the card, ``README.md``, alone is replaced.
    """
    record = store.verify(directory)
    api = HfApi(token=token)
    for wait in (*_WAITS, None):
        try:
            return _push(directory, record, repo, api)
        except UploadError:
            raise
        except Exception as error:  # noqa: BLE001 - it may hold the token, which is removed from its text
            status = _status(error)
            reason = _reason(error, status, repo, api.endpoint).replace(token, "***")
        temporary = status is None or status in (408, 429) or status >= 500
        if wait is None or not temporary:
            break
        logger.warning("%s; trying again in %g seconds", reason, wait)
        time.sleep(wait)
    raise (UnreachableError if temporary else UploadError)(
        f"{directory} was not pushed to {repo}: {reason}. The release is complete on this machine; "
        "materialise hf_release again, or repeat the promotion, to push what is missing"
    )


def _push(directory: Path, record: BundleRecord, repo: str, api: HfApi) -> str:
    api.create_repo(repo, private=True, exist_ok=True)
    main = api.model_info(repo, revision="main", files_metadata=True)
    there = {file.rfilename: file for file in main.siblings or ()}
    earlier = _earlier(api, repo, str(main.sha)) if bundle.RECORD_FILE in there else {}
    names = [*record.files, bundle.RECORD_FILE]
    changed = [name for name in names if not _same(there.get(name), directory / name)]
    # The hub's page makes a card with a new repository.
    if foreign := sorted(there.keys() & changed - earlier.keys() - {CARD_FILE}):
        raise UploadError(
            f"{directory} was not pushed to {repo}: it holds {', '.join(foreign)}, which no "
            "release put there. Remove them, or set CXR_HF_REPO to another repository; then "
            "materialise hf_release again"
        )
    obsolete = sorted(there.keys() & earlier.keys() - set(names))
    # Not upload_folder, which may make several commits of one push.
    commit = api.create_commit(
        repo,
        [
            *(
                CommitOperationDelete(name)
                for name in obsolete
                if _sha256(api, repo, str(main.sha), there[name]) == earlier[name]
            ),
            *(CommitOperationAdd(name, directory / name) for name in changed),
        ],
        commit_message=f"Release {record.version}",
        parent_commit=main.sha,
    )
    api.create_tag(repo, tag=record.version, revision=commit.oid, exist_ok=True)
    return str(commit.commit_url)


def _earlier(api: HfApi, repo: str, revision: str) -> dict[str, str | None]:
    """sha256 of each file that an earlier release put there, None for the record; else nothing."""
    try:
        content = _fetch(api, repo, revision, bundle.RECORD_FILE)
        return {**BundleRecord.model_validate_json(content).files, bundle.RECORD_FILE: None}
    except (EntryNotFoundError, RepositoryNotFoundError, ValidationError):
        return {}


def _fetch(api: HfApi, repo: str, revision: str, name: str) -> bytes:
    response = get_session().get(
        f"{api.endpoint}/{repo}/resolve/{revision}/{quote(name)}",
        headers=build_hf_headers(token=api.token),
        timeout=_TIMEOUT,
    )
    hf_raise_for_status(response)
    return bytes(response.content)


def _same(there: RepoSibling | None, file: Path) -> bool:
    """Whether the hub has a file with this content; it identifies large ones by sha256."""
    if there is None:
        return False
    with file.open("rb") as content:
        if there.lfs is not None:
            return hashlib.file_digest(content, "sha256").hexdigest() == there.lfs.sha256
        return git_hash(content.read()) == there.blob_id


def _sha256(api: HfApi, repo: str, revision: str, there: RepoSibling) -> str:
    if there.lfs is not None:
        return str(there.lfs.sha256)
    return hashlib.sha256(_fetch(api, repo, revision, there.rfilename)).hexdigest()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: Exception) -> int | None:
    """The HTTP status in an error of the client or one of its causes; None if there is none."""
    for cause in _causes(error):
        if (response := getattr(cause, "response", None)) is not None:
            return int(response.status_code)
        if match := _XET_STATUS.search(str(cause)):
            return int(match[1])
    return None


def _reason(error: Exception, status: int | None, repo: str, endpoint: str) -> str:
    if status is None:
        *_, first = _causes(error)
        return (
            f"{endpoint} could not be reached, or the connection broke "
            f"({type(first).__name__}: {first})"
        )
    conflict = (
        f"someone else changed {repo} during the push, or the token may only propose changes "
        f"({status}): look at its commits"
    )
    rejections = {
        401: "the token is not valid (401): set HF_TOKEN to one that is",
        403: f"the token may not write to {repo} (403): it needs the write permission there",
        404: f"there is no {repo}, or the token may not see it (404): check CXR_HF_REPO",
        409: conflict,
        412: conflict,
    }
    return rejections.get(status, f"{endpoint} answered {status} ({error})")
