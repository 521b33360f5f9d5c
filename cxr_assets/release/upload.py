"""The way of a release to the Hugging Face Hub, or to a hub of one's own (``HF_ENDPOINT``)."""

from pathlib import Path

from huggingface_hub import HfApi

from cxr_serving import bundle


class UploadError(Exception):
    """The release did not reach the hub; the message says why and what to do, never the token."""


def push(directory: Path, repo: str, token: str, endpoint: str | None = None) -> str:
    """Make the main branch of a model repository equal to the release, in one commit and a tag.

    The repository is created, private, where it does not exist. Files that are there already are
    not sent again, files that the release does not have are deleted. The tag is the release's
    version; one that exists stays where it is.

    Args:
        directory: the release.
        repo: name of the repository, ``owner/name``.
        token: of an account that may write there; it appears in no log and no error.
        endpoint: address of the hub; huggingface_hub's own (``HF_ENDPOINT``) when None.

    Returns:
        URL of the commit.

    Raises:
        BundleError: the release is broken; nothing was sent.
        UploadError: the hub cannot be reached or refuses.
    """
    version = bundle.verify(directory).version
    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=directory,
            commit_message=f"Release {version}",
            delete_patterns="*",
        )
        api.create_tag(repo, tag=version, revision=commit.oid, exist_ok=True)
    except Exception as error:  # noqa: BLE001 - it may hold the token: only its words go on
        reason = _reason(error, repo, api.endpoint).replace(token, "***")
    else:
        return str(commit.commit_url)
    raise UploadError(
        f"{directory} was not pushed to {repo}: {reason}. The release is whole on this machine; "
        "materialise hf_release again to push what is missing"
    )


def _reason(error: Exception, repo: str, endpoint: str) -> str:
    response = getattr(error, "response", None)
    if response is None:
        return f"{endpoint} could not be reached or broke off ({type(error).__name__}: {error})"
    refusals = {
        401: "the token is not valid (401): set HF_TOKEN to one that is",
        403: f"the token may not write to {repo} (403): it needs the write permission there",
        404: f"there is no {repo}, or the token may not see it (404): check CXR_HF_REPO",
    }
    return refusals.get(
        response.status_code, f"{endpoint} answered {response.status_code} ({error})"
    )
