"""JPEG and PNG files, reduced to what decoding their pixels needs.

Comments, colour profiles, previews and other metadata never reach a decoder: no image is rejected
for broken metadata, and metadata that inflates costs nothing. Only the orientation is kept.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from PIL import ExifTags, Image

from cxr_serving.images import formats


class ImageError(ValueError):
    """An image cannot be used; the message says why, and holds no byte of the file."""


class UnsupportedImage(ImageError):
    """The bytes are not a single-frame image of a kind that is read."""


class ImageTooLarge(ImageError):
    """The image has more pixels than are decoded."""


class UndecodableImage(ImageError):
    """The image is of a supported format, but broken or blank."""


# Segments or chunks of a file: encoders write some thousands at most.
_MAX_PARTS = 65_536
_MAX_TEXT_BYTES = 2**20

_ANCILLARY = 0x20  # in the first letter of a chunk's name: not needed for pixels
_IHDR = struct.Struct(">IIB")  # width, height and bit depth

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_STANDALONE = (0x01, *range(0xD0, 0xD8))  # no length follows
_APP0, _APP1, _APP14, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
# Frames of ITU-T T.81, table B.1, and of T.87 (JPEG-LS).
_FRAMES = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC9, 0xCA), None),
    **dict.fromkeys((0xC3, 0xCB), "lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG"),
    0xF7: "JPEG-LS file",
}


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        width: in pixels, as stored.
        height: in pixels, as stored.
        bits: significant bits of a sample.
    """

    width: int
    height: int
    bits: int


@dataclass(frozen=True)
class Container:
    """A JPEG or PNG file before its pixels are decoded.

    Attributes:
        width: in pixels, as stored.
        height: in pixels, as stored.
        bits: significant bits of a sample, as declared: 8 in a JPEG; in a PNG its bit depth, or
            less by its sBIT chunk.
        pixels: a JPEG or PNG file without metadata.
        orientation: 1 to 8, as in EXIF; 1 where none is given or it is invalid.
    """

    width: int
    height: int
    bits: int
    pixels: bytes
    orientation: int


def read(data: bytes) -> Container:
    """Parse a JPEG or PNG file without decoding a pixel.

    Raises:
        UnsupportedImage: another kind of file, an animation, or a kind of JPEG that is not read.
        UndecodableImage: empty, truncated or otherwise broken.
    """
    if not data:
        raise UndecodableImage("the file is empty")
    kind = formats.kind(data[: formats.HEAD_BYTES])
    if kind == "JPEG":
        return _jpeg(data)
    if kind == "PNG":
        return _png(data)
    if kind == "DICOM":
        raise UnsupportedImage("DICOM is not read here: convert it to PNG")
    raise UnsupportedImage(
        "not a JPEG, PNG or DICOM file" + (f": it is a {kind} file; convert it" if kind else "")
    )


def _jpeg(data: bytes) -> Container:
    whole, said = memoryview(data), dict[str, bytes]()
    kept = [whole[:2]]
    size: tuple[int, int] | None = None
    for marker, start, end in _segments(data):
        body = data[start + 4 : end]
        if marker in _FRAMES:
            size = _frame(marker, body)
        if marker == _SCAN:
            kept.append(whole[start:])
            break
        if marker == _APP1 and body.startswith(_EXIF):
            said.setdefault("exif", body)
        elif marker == _APP1 and body.startswith(_XMP):
            said.setdefault("xmp", body[len(_XMP) :])
        # Of the application segments decoders use two, which define the colours.
        elif (
            (marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 14)
            or (marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12)
            or not (_APP0 <= marker < _APP0 + 16 or marker == _COMMENT)
        ):
            kept.append(whole[start:end])
    if size is None or not all(size):
        raise UndecodableImage("the JPEG is broken: it does not say its size")
    return Container(*size, 8, b"".join(kept), _orientation(said))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the first scan; fill bytes are left out."""
    position = 2
    for _ in range(_MAX_PARTS):
        match = _MARKER.search(data, position)
        if match is None or data[match.end() - 1] == _END:
            break
        marker, start = data[match.end() - 1], match.start()
        if marker in _STANDALONE:
            position = match.end()
            continue
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        position = start + 2 + length
        if marker == _START or length < 2 or position > len(data):
            break
        yield marker, start, position
    raise UndecodableImage("the JPEG is broken or truncated before its pixels")


def _frame(marker: int, body: bytes) -> tuple[int, int]:
    """Width and height of a JPEG that is read."""
    name = _FRAMES[marker]
    if name is None and body[:1] == b"\x0c":
        name = "12-bit JPEG"
    if name is not None:
        raise UnsupportedImage(
            f"the image is a {name}, which is not read: save it as PNG or as 8-bit baseline JPEG"
        )
    return int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")


def _png(data: bytes) -> Container:
    whole, said = memoryview(data), dict[str, bytes]()
    kept = [whole[: len(formats.PNG)]]
    declared, pixels = 0, False
    for name, start, end, valid in _chunks(data):
        if not name[0] & _ANCILLARY:
            if name == b"IHDR" and start > len(formats.PNG):
                raise UndecodableImage("the PNG is broken: it has several headers")
            pixels |= name == b"IDAT"
            kept.append(whole[start:end])
            continue
        body = data[start + 8 : end - 4] if valid else b""
        if name == b"acTL" and not pixels and int.from_bytes(body[:4], "big") > 1:
            raise UnsupportedImage("an animated image is not a radiograph: send one image")
        if name == b"sBIT" and not pixels:
            declared = max(body, default=0)
        elif name == b"eXIf" and body:
            said.setdefault("exif", _EXIF + body.removeprefix(_EXIF))
        else:
            said |= _text(name, body)
    if data[8:16] != b"\0\0\0\x0dIHDR" or not pixels:
        raise UndecodableImage("the PNG is broken or truncated before its pixels")
    width, height, depth = _IHDR.unpack_from(data, 16)
    bits = declared if 0 < declared < depth else depth
    return Container(width, height, bits, b"".join(kept), _orientation(said))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Name, start and end of each chunk, and whether its checksum is right.

    A chunk that is cut off is the last, and ends with the file.
    """
    position = len(formats.PNG)
    for _ in range(_MAX_PARTS):
        name = data[position + 4 : position + 8]
        if len(name) < 4:
            return
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        # Decoders check the chunks that pixels need.
        ancillary = name[0] & _ANCILLARY
        checksum = zlib.crc32(data[position + 4 : end - 4]) if ancillary else 0
        yield (
            name,
            position,
            min(end, len(data)),
            end <= len(data) and checksum == int.from_bytes(data[end - 4 : end], "big"),
        )
        if name == b"IEND" or end >= len(data):
            return
        position = end
    raise UndecodableImage("the PNG is broken: it has too many chunks")


def _text(name: bytes, body: bytes) -> dict[str, bytes]:
    """The part of a text chunk that holds an orientation: XMP, or EXIF as ImageMagick writes it."""
    keyword, _, text = body.partition(b"\0")
    if name == b"iTXt" and keyword == b"XML:com.adobe.xmp" and text[:1] == b"\0":
        return {"xmp": text}
    if name == b"zTXt" and keyword == b"Raw profile type exif":
        try:
            text = zlib.decompressobj().decompress(text[1:], _MAX_TEXT_BYTES)
            return {"exif": bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))}
        except (zlib.error, ValueError):
            return {}
    return {}


def _orientation(said: Mapping[str, bytes]) -> int:
    for name in ("exif", "xmp"):
        if name not in said:
            continue
        carrier = Image.new("L", (1, 1))
        carrier.info = {name: said[name]}
        try:
            orientation = carrier.getexif().get(ExifTags.Base.Orientation)
        # Pillow parses EXIF as TIFF, and fails in many ways: then there is no orientation.
        except Exception:  # noqa: BLE001, S112
            continue
        if isinstance(orientation, int) and 1 <= orientation <= 8:
            return orientation
    return 1
