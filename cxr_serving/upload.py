"""Reads films out of a request: bounded, and in memory only."""

import sys
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cxr_serving.errors import ServiceError

FIELD = "file"


def openapi_body(many: bool) -> dict[str, Any]:
    """For OpenAPI; bodies are parsed here because FastAPI's own parsing spools files to disk."""
    film = {
        "type": "string",
        "format": "binary",
        "description": "A frontal chest radiograph as JPEG, PNG or DICOM.",
    }
    schema = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "array", "items": film} if many else film},
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


async def read_films(request: Request, max_bytes: int, max_films: int) -> list[bytes]:
    """The bytes of the files in the multipart field ``file``; nothing is written to disk.

    Args:
        request: whose body was not read yet.
        max_bytes: of the whole body. They are counted as they arrive, whatever the headers say.
        max_films: files in the body.

    Raises:
        ServiceError: 413 for a larger body or more files, 422 without such a field, 400 for a body
            that is not multipart as it says.
    """
    content_type, _, _ = request.headers.get("content-type", "").partition(";")
    if content_type.strip().lower() != "multipart/form-data":
        raise _missing()
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    parser = _Parser(
        request.headers, _bounded(request, max_bytes), max_files=max_films + 1, max_fields=16
    )
    parser.spool_max_size = sys.maxsize
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ServiceError(400, "malformed_multipart", error.message) from error
    if not parser.ended:
        raise ServiceError(400, "malformed_multipart", "the body ends before its last boundary")
    files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
    if not files:
        raise _missing()
    if len(files) > max_films:
        raise ServiceError(413, "too_many_films", f"more than {max_films} films in one request")
    return [await file.read() for file in files]


class _Parser(MultiPartParser):
    """Knows whether the body was whole."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> ServiceError:
    return ServiceError(
        413,
        "upload_too_large",
        f"the request is larger than {max_bytes:,} bytes, the most accepted",
    )


def _missing() -> ServiceError:
    return ServiceError(
        422,
        "missing_file",
        f"no film: send it as multipart/form-data in the field {FIELD!r}, "
        f"as curl -F {FIELD}=@film.jpeg does",
    )
