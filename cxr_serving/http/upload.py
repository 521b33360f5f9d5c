"""Reads images out of a multipart request, in memory only."""

import logging
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cxr_serving.http.errors import ServiceError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "file"

# Parts that are ignored; forms of web pages send a few.
_OTHER_PARTS = 16
_BINARY = (b"", b"7bit", b"8bit", b"binary")

# Its warnings about broken forms quote bytes of them.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def openapi_body(many: bool) -> dict[str, Any]:
    """For OpenAPI; bodies are parsed here because FastAPI's own parsing spools files to disk."""
    image = {
        "type": "string",
        "format": "binary",
        "description": "A frontal chest radiograph as JPEG, PNG or DICOM.",
    }
    schema = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "array", "items": image} if many else image},
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


async def read_images(request: Request, max_images: int) -> list[bytes]:
    """The contents of the multipart field ``file``, in order; nothing is written to disk.

    A part needs no file name (RFC 7578, 4.2), but without one it must not be text: that would be a
    path that the client failed to replace by the file. Parts of other fields are ignored.

    Args:
        request: whose body has not been read; errors of a body that is too large or too slow
            pass through.
        max_images: most parts of the field.

    Raises:
        ServiceError: 413 for more images, 422 without such a field, 400 for a body that is not
            valid multipart.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise _missing("the request is not multipart/form-data")
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed(
            "the header Content-Type has no boundary; leave that header to the HTTP library"
        )
    form = _Form(max_images)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:  # its message would quote bytes of the body
        raise _malformed(
            "the body is not the multipart form that its header Content-Type announces"
        ) from error
    if not form.ended:
        raise _malformed("the body ends before its last boundary")
    if form.sent == 0:
        raise _missing(f"the form has no field {FIELD!r}")
    if form.sent > max_images:
        raise ServiceError(
            413,
            "too_many_images",
            f"{form.sent} images in one request, but this route accepts at most {max_images}: "
            + ("send them one by one, or to /predict/batch" if max_images == 1 else "send fewer"),
        )
    return form.images


class _Form:
    """Collects the images that the parser finds."""

    def __init__(self, max_images: int) -> None:
        self.images: list[bytes] = []
        self.sent = 0  # may exceed the number kept
        self.ended = False
        self._max_images = max_images
        self._other_parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._has_file_name = False
        self._image: BytesIO | None = None

    def callbacks(self) -> "MultipartCallbacks":
        """The callbacks of the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise _malformed("a part has no Content-Disposition header with a name")
        if options[b"name"] != FIELD.encode():
            self._image = None
            self._other_parts += 1
            if self._other_parts > _OTHER_PARTS:
                raise ServiceError(
                    413,
                    "too_many_fields",
                    f"the form has more than {_OTHER_PARTS} parts that are not in the field "
                    f"{FIELD!r}: send only the images",
                )
            return
        self.sent += 1
        if self._headers.get(b"content-type", b"").strip().lower().startswith(b"multipart/"):
            raise _malformed(
                f"a part holds parts of its own: send each image as a part of the field {FIELD!r}"
            )
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in _BINARY:
            raise _malformed("a part has a Content-Transfer-Encoding: send its bytes as they are")
        self._has_file_name = b"filename" in options
        self._image = BytesIO() if self.sent <= self._max_images else None

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._image is not None:
            self._image.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        if self._image is None:
            return
        image = self._image.getvalue()
        if not self._has_file_name and _is_text(image):
            raise _missing(f"the field {FIELD!r} holds text instead of a file")
        self.images.append(image)

    def _end(self) -> None:
        self.ended = True


def _is_text(data: bytes) -> bool:
    """Whether it is UTF-8 without a NUL, which no JPEG, PNG or DICOM file is."""
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _malformed(reason: str) -> ServiceError:
    return ServiceError(400, "malformed_multipart", reason)


def _missing(reason: str) -> ServiceError:
    return ServiceError(
        422,
        "missing_file",
        f"{reason}: send an image as multipart/form-data in the field {FIELD!r}, "
        f"as curl -F {FIELD}=@image.jpeg does",
    )
