"""Image files, put together piece by piece: PNG, JPEG and DICOM."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, RGBA = 0, 2, 3, 6
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, RGBA: 4}


def image(width: int = 300, height: int = 240, seed: int = 0) -> Image.Image:
    """A grey image of smooth waves with grain."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 80 * np.sin(6 * np.pi * x / width) * np.cos(4 * np.pi * y / height)
    grain = np.random.default_rng(seed).normal(0, 8, waves.shape)
    return Image.fromarray((waves + grain).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    colour: int = GREY,
    depth: int = 8,
    interlace: int = 0,
    data: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    """A PNG, black where ``data``, the compressed rows, is not given; ``extra`` are chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    rows = _black(width, height, _CHANNELS.get(colour, 1) * depth) if data is None else data
    return b"".join(
        (SIGNATURE, chunk(b"IHDR", header), extra, chunk(b"IDAT", rows), chunk(b"IEND", b""))
    )


def _black(width: int, height: int, bits: int) -> bytes:
    row = bytes(1 + (width * bits + 7) // 8)
    compressor = zlib.compressobj()
    rows = b"".join(compressor.compress(row) for _ in range(height))
    return rows + compressor.flush()


def _marker(kind: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


def with_segment(jpeg: bytes, kind: int, data: bytes, times: int = 1) -> bytes:
    return jpeg[:2] + times * _marker(kind, data) + jpeg[2:]


def of_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG that claims another size than it has."""
    at = frame(jpeg) + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def frame(jpeg: bytes) -> int:
    """Where the frame header begins."""
    return min(at for at in (jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) if at > 0)


def many_scans(width: int, height: int, times: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: few bytes, much to do."""
    jpeg = encode(Image.new("L", (width, height), 99), "JPEG", progressive=True)
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    return jpeg[:-2] + times * scan + b"\xff\xd9"


def exif(ifd: bytes) -> bytes:
    return b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + ifd


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def element(group: int, number: int, representation: bytes, value: bytes) -> bytes:
    """A data element of DICOM, Explicit VR Little Endian."""
    padded = value + b"\x00" * (len(value) % 2)
    head = struct.pack("<HH2s", group, number, representation)
    if representation in (b"OB", b"OW", b"SQ", b"UN"):
        return head + b"\x00\x00" + struct.pack("<I", len(padded)) + padded
    return head + struct.pack("<H", len(padded)) + padded


def dicom(
    width: int = 100,
    height: int = 80,
    pixels: bytes | None = None,
    preamble: bytes = bytes(128),
    syntax: bytes = b"1.2.840.10008.1.2.1",
    extra: bytes = b"",
    modality: bytes = b"DX",
) -> bytes:
    """A radiograph of 16 bits as DICOM, with a name of nobody; ``extra`` goes before the image."""

    def short(value: int) -> bytes:
        return struct.pack("<H", value)

    if pixels is None:
        pixels = (np.asarray(image(width, height)).astype("<u2") * 16).tobytes()
    meta = element(2, 0x10, b"UI", syntax)
    body = (
        element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.1.1"),
        element(8, 0x18, b"UI", b"1.2.3"),
        element(8, 0x60, b"CS", modality),
        element(0x10, 0x10, b"PN", b"NOBODY^KNOWN"),
        extra,
        element(0x28, 0x2, b"US", short(1)),
        element(0x28, 0x4, b"CS", b"MONOCHROME2 "),
        element(0x28, 0x10, b"US", short(height)),
        element(0x28, 0x11, b"US", short(width)),
        element(0x28, 0x100, b"US", short(16)),
        element(0x28, 0x101, b"US", short(12)),
        element(0x28, 0x102, b"US", short(11)),
        element(0x28, 0x103, b"US", short(0)),
        element(0x7FE0, 0x10, b"OW", pixels),
    )
    length = element(2, 0, b"UL", struct.pack("<I", len(meta)))
    return b"".join((preamble, b"DICM", length, meta, *body))


def nested(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
        value = element(0x40, 0x275, b"SQ", item)
    return value
