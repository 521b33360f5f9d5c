"""Reads the film out of a request: bounded, and in memory only."""

import sys
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cxr_serving.errors import ServiceError

FIELD = "file"
# For OpenAPI; the body is parsed here because FastAPI's own parsing spools large files to disk.
OPENAPI_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "A frontal chest radiograph as JPEG or PNG.",
                        }
                    },
                }
            }
        },
    }
}


async def read_film(request: Request, max_bytes: int) -> bytes:
    """The bytes of the file in the multipart field ``file``; nothing is written to disk.

    Args:
        request: whose body was not read yet.
        max_bytes: of the whole body. They are counted as they arrive, whatever the headers say.

    Raises:
        ServiceError: 413 for a larger body, 422 without such a field, 400 for an empty file or a
            body that is not multipart as it says.
    """
    content_type, _, _ = request.headers.get("content-type", "").partition(";")
    if content_type.strip().lower() != "multipart/form-data":
        raise _missing()
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    parser = MultiPartParser(request.headers, _bounded(request, max_bytes), max_files=1)
    parser.spool_max_size = sys.maxsize
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ServiceError(400, "malformed_multipart", error.message) from error
    file = form.get(FIELD)
    if not isinstance(file, UploadFile):
        raise _missing()
    film = await file.read()
    if not film:
        raise ServiceError(400, "empty_file", f"the file in the field {FIELD!r} is empty")
    return film


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
