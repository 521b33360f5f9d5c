"""Downloading a data set from Kaggle with Kaggle's client, ``kagglehub``."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kagglehub
import requests
from kagglehub.config import CACHE_FOLDER_ENV_VAR_NAME, get_kaggle_credentials
from kagglehub.exceptions import DataCorruptionError
from kagglehub.handle import DatasetHandle, parse_dataset_handle

from cxr_assets import written
from cxr_assets.progress import Progress
from cxr_serving.model.atomic import set_aside, sync

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
KIND = "Kaggle data set"

_CUT = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
)
_BROKEN_ARCHIVE = (ValueError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error)


class KaggleError(Exception):
    """The data set could not be downloaded; the message says why and what to do."""


class UnreachableError(KaggleError):
    """Kaggle does not answer, or is busy: another attempt may help."""


def fetch(dataset: str, cache: Path, progress: Progress) -> Path:
    """Download a data set, or reuse an earlier download.

    Every call looks up the newest version, unless ``dataset`` names one
    (``owner/name/versions/2``): that needs no network once it is downloaded. An interrupted
    download is resumed: at once while it makes progress, otherwise by the next call. An earlier
    download is verified first; if it is broken, it is set aside and downloaded again. The client
    checks the MD5 that Kaggle declares. It uses Kaggle credentials if there are any; public data
    needs none.

    Args:
        dataset: ``owner/name`` on Kaggle.
        cache: kagglehub's cache directory.
        progress: called with a line per stage.

    Returns:
        The directory with the extracted files.

    Raises:
        UnreachableError: Kaggle cannot be reached or is busy.
        KaggleError: it rejects the request, does not know the data set or sends a broken archive,
            or the cache cannot be written.
    """
    try:
        handle = parse_dataset_handle(dataset)
        credentials = get_kaggle_credentials()
    except ValueError as error:
        raise KaggleError(f"{dataset} cannot be downloaded from Kaggle: {error}") from error
    progress(f"downloading {dataset} from Kaggle into {cache}")
    with _client_settings(cache):
        while True:
            before = _archive_bytes(cache, handle)
            try:
                folder = Path(kagglehub.dataset_download(dataset))
                if not written.sealed(folder):  # just downloaded
                    sync(folder)
                    written.seal(folder, KIND)
                if (problem := written.fault(folder)) is None:
                    return folder
                # Otherwise the client would accept the next one as complete, even half extracted.
                folder.parent.with_name(f"{folder.name}.complete").unlink(missing_ok=True)
                progress(f"set aside as {set_aside(folder)} and downloaded again: {problem}")
            except requests.HTTPError as error:
                raise _rejection(dataset, error, credentials is not None) from error
            except _CUT as error:
                received = _archive_bytes(cache, handle)
                if received <= before:
                    raise UnreachableError(_unreachable(dataset, error, received)) from error
                progress(f"the connection broke after {received:,} bytes; resuming")
            except DataCorruptionError as error:
                raise KaggleError(
                    f"the archive of {dataset} does not match the checksum that Kaggle declares; "
                    "it was deleted: run again to download it again"
                ) from error
            except _BROKEN_ARCHIVE as error:
                for archive in _archives(cache, handle):
                    archive.unlink()
                raise KaggleError(
                    f"the archive of {dataset} is broken ({error}); "
                    "it was deleted: run again to download it again"
                ) from error
            except OSError as error:
                raise KaggleError(
                    f"{dataset} cannot be stored in {cache}: {error.strerror or error}"
                ) from error


@contextmanager
def _client_settings(cache: Path) -> Iterator[None]:
    """Set the client's cache directory, and timeouts, which kagglesdk does not set."""
    send = requests.Session.send
    previous = os.environ.get(CACHE_FOLDER_ENV_VAR_NAME)

    def send_in_time(
        session: requests.Session, request: requests.PreparedRequest, **settings: Any
    ) -> requests.Response:
        settings.setdefault("timeout", (CONNECT_TIMEOUT, READ_TIMEOUT))
        return send(session, request, **settings)

    requests.Session.send = send_in_time  # type: ignore[method-assign, assignment]
    os.environ[CACHE_FOLDER_ENV_VAR_NAME] = str(cache)
    try:
        yield
    finally:
        requests.Session.send = send  # type: ignore[method-assign]
        if previous is None:
            del os.environ[CACHE_FOLDER_ENV_VAR_NAME]
        else:
            os.environ[CACHE_FOLDER_ENV_VAR_NAME] = previous


def _archives(cache: Path, handle: DatasetHandle) -> list[Path]:
    return list((cache / "datasets" / handle.owner / handle.dataset).glob("*.archive"))


def _archive_bytes(cache: Path, handle: DatasetHandle) -> int:
    return sum(path.stat().st_size for path in _archives(cache, handle))


def _rejection(dataset: str, error: requests.HTTPError, credentials: bool) -> KaggleError:
    status = error.response.status_code if error.response is not None else None
    if status in (401, 403):
        advice = (
            "the credentials may have expired; public data needs none"
            if credentials
            else "there are no credentials; set KAGGLE_API_TOKEN"
        )
        return KaggleError(f"Kaggle rejects {dataset} (HTTP {status}): {advice}")
    if status == 404:
        return KaggleError(
            f"Kaggle has no data set {dataset} (HTTP 404): data.dataset must be owner/name"
        )
    return UnreachableError(f"Kaggle answers HTTP {status} for {dataset}: try again later")


def _unreachable(dataset: str, error: requests.RequestException, received: int) -> str:
    host = urlsplit(str(error.request.url)).hostname if error.request is not None else "Kaggle"
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    kept = f" {received:,} bytes are kept and the next run resumes there." if received else ""
    return (
        f"{host} could not be reached to download {dataset}: {cause}.{kept} Check the network or "
        "HTTPS_PROXY. Without a network, run experiment=demo, or experiment=scratch with "
        "data.folder set to a folder of images."
    )
