"""Files that a service should not trip over: bombs, polyglots, mutants, and what is no image.

Everything is made by the standard library, numpy and Pillow from a seed, the same on every run.
"""

import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from benchmarks.serving.forge import (
    PALETTE,
    RGB,
    RGBA,
    SIGNATURE,
    chunk,
    dicom,
    element,
    encode,
    entry,
    exif,
    frame,
    image,
    many_scans,
    nested,
    of_size,
    png,
    with_segment,
)

Make = Callable[[], bytes]

# File names and content types that lie, or lead elsewhere.
NAMES = (
    b"image.jpeg",
    b"../../../../etc/passwd",
    b"..\\..\\boot.ini",
    b"/dev/zero",
    b"image.dcm",
    b"image.png.exe",
    b"x" * 5000,
    b"",
    b"\xff\xfe\x00",
    b"%00%0d%0a",
    b"<script>alert(1)</script>",
    b"$(reboot)",
    "röntgen 胸.jpeg".encode(),
    b"con",
)
TYPES = (
    b"image/jpeg",
    b"image/png",
    b"application/dicom",
    b"text/html",
    b"application/x-msdownload",
    b"image/svg+xml; charset=\xff",
    b"",
    b"a" * 3000,
)


def rejected() -> dict[str, Make]:
    """What must never be classified, by name; made when called."""
    grey = image()
    jpeg, flat = encode(grey, "JPEG"), encode(grey, "PNG")
    few = zlib.compress(bytes(1000))
    other = grey.rotate(90)
    heads = {
        "one byte": b"\xff",
        "zeros": bytes(1000),
        "text": b"a text, not an image",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "html": b"<!doctype html><script>alert(1)</script>",
        "billion laughs": b"<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a 'ha'>"
        + b"".join(b"<!ENTITY a%d '%b'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10))
        + b"]><l>&a9;</l>",
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "pdf before jpeg": b"%PDF-1.7\n" + jpeg,
        "gif before jpeg": b"GIF89a" + jpeg,
        "zip before jpeg": b"PK\x03\x04" + jpeg,
        "html before png": b"<script>" + flat,
        "zip": b"PK\x05\x06" + bytes(18),
        "elf": b"\x7fELF" + bytes(100),
        "exe": b"MZ" + bytes(100),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        "psd": b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30000, 30000, 8, 3),
        "pgm": b"P5 99999 99999 255\n" + bytes(99),
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "json": b'{"file": "image"}',
        "heic": b"\x00\x00\x00\x18ftypheic" + bytes(99),
        "jpeg xl": b"\xff\x0a" + bytes(99),
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(99),
        "xpm": b'/* XPM */\nstatic char *x[] = {"9 9 1 1", "a c red"};',
        "fits": b"SIMPLE  =                    T" + bytes(2850),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "start of jpeg": b"\xff\xd8",
        "start and end of jpeg": b"\xff\xd8\xff\xd9",
        "signature of png": SIGNATURE,
        "jpeg without frame": b"\xff\xd8\xff\xe0" + jpeg[4:20] + b"\xff\xd9",
        "jpeg without scan": jpeg[: jpeg.find(b"\xff\xda")],
        "png without header": SIGNATURE + flat[33:],
        "png without data": SIGNATURE + flat[8:33] + chunk(b"IEND", b""),
        "half a jpeg": jpeg[: len(jpeg) // 2],
        "half a png": flat[: len(flat) // 2],
        "jpeg of no size": of_size(jpeg, 0, 0),
        "jpeg of 65535 x 65535": of_size(jpeg, 65535, 65535),
        "jpeg of five components": jpeg.replace(b"\x01\x01\x11\x00", b"\x05\x01\x11\x00", 1),
        "dicom of nothing": bytes(128) + b"DICM",
        "dicom of noise": bytes(128) + b"DICM" + random.Random(1).randbytes(5000),
        "dicom of 65535 x 65535": dicom(65535, 65535, pixels=bytes(100)),
        "dicom cut": dicom()[:-5000],
        "dicom of CT": dicom(modality=b"CT"),
        "dicom, deflated": dicom(syntax=b"1.2.840.10008.1.2.1.99"),
        "dicom, unknown syntax": dicom(syntax=b"1.2.3.4"),
    }
    for name in ("GIF", "TIFF", "BMP", "WEBP", "ICO", "PCX", "TGA", "SGI", "JPEG2000", "PPM"):
        heads[name.lower()] = encode(grey, name)
    for name in ("GIF", "PNG", "TIFF", "WEBP"):
        heads[f"animated {name.lower()}"] = encode(grey, name, save_all=True, append_images=[other])
    sizes = (
        (30_000, 30_000),
        (100_000, 100_000),
        (8_001, 4_000),
        (1, 100_000_000),
        (2**31 - 1, 2**31 - 1),
        (0, 0),
        (7_000, 7_000),  # few enough pixels to be decoded, of which there are none
    )
    for width, height in sizes:
        heads[f"png of {width} x {height}"] = png(width, height, data=few)
        heads[f"rgba of {width} x {height}"] = png(width, height, RGBA, data=few)
    return {
        **{name: lambda data=data: data for name, data in heads.items()},  # type: ignore[misc]
    }


def odd() -> dict[str, Make]:
    """What may be classified or rejected, by name; made when called."""
    grey = image()
    colour = Image.merge("RGB", [grey, grey.rotate(180), grey])
    jpeg, flat = encode(grey, "JPEG"), encode(grey, "PNG")
    see_through = grey.convert("P")
    loop = struct.pack("<H", 1) + entry(0x8769, 4, 1, 8) + struct.pack("<I", 8)
    endless = struct.pack("<H", 0xFFFF) + entry(0x0112, 3, 0xFFFFFFFF, 0xFFFFFFF0) * 40
    rows = zlib.compress(bytes(65 * 64))
    pieces = b"".join(chunk(b"IDAT", rows[at : at + 1]) for at in range(len(rows)))
    icc = b"ICC_PROFILE\x00\x01\xff" + bytes(60_000)
    return {
        "png, 64 MB of text": lambda: png(
            64, 64, extra=chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(2**26)))
        ),
        "png, 64 MB of international text": lambda: png(
            64, 64, extra=chunk(b"iTXt", b"a\x00\x01\x00\x00\x00" + zlib.compress(bytes(2**26)))
        ),
        "one pixel": lambda: png(1, 1),
        "jpeg of one pixel": lambda: encode(Image.new("L", (1, 1)), "JPEG"),
        "a line": lambda: png(60_000, 1),
        "a column": lambda: png(1, 60_000),
        "1 bit": lambda: png(99, 99, depth=1),
        "2 bit": lambda: png(99, 99, depth=2),
        "16 bit": lambda: png(99, 99, depth=16),
        "16 bit rgba": lambda: png(99, 99, RGBA, 16),
        "3 bit": lambda: png(99, 99, depth=3),
        "colour type 5": lambda: png(99, 99, colour=5),
        "palette without a palette": lambda: png(99, 99, PALETTE),
        "palette of 300": lambda: png(99, 99, PALETTE, extra=chunk(b"PLTE", bytes(900))),
        "palette with transparency": lambda: encode(see_through, "PNG", transparency=bytes(256)),
        "transparency out of place": lambda: png(9, 9, RGBA, extra=chunk(b"tRNS", bytes(99))),
        "interlaced": lambda: png(1, 1, interlace=1),
        "interlaced, of other rows": lambda: png(64, 64, interlace=1),
        "interlaced otherwise": lambda: png(64, 64, interlace=7),
        "filter 9": lambda: png(64, 64, data=zlib.compress(b"\x09" * (65 * 64))),
        "more rows than said": lambda: png(64, 64, data=zlib.compress(bytes(2**24))),
        "data in many pieces": lambda: png(64, 64, data=b"").replace(chunk(b"IDAT", b""), pieces),
        "10,000 comments": lambda: png(64, 64, extra=chunk(b"tEXt", b"a\x00b") * 10_000),
        "two headers": lambda: flat[:33] + flat[8:],
        "critical chunk unknown": lambda: png(64, 64, extra=chunk(b"ABCD", b"")),
        "chunk of 4 GB": lambda: flat[:33] + b"\xff\xff\xff\xfftEXt" + flat[33:],
        "profile of 64 MB": lambda: png(
            64, 64, extra=chunk(b"iCCP", b"a\x00\x00" + zlib.compress(bytes(2**26)))
        ),
        "exif in png": lambda: png(64, 64, extra=chunk(b"eXIf", exif(loop)[6:])),
        "png with html": lambda: png(64, 64, extra=chunk(b"tEXt", b"a\x00<script>alert(1)")),
        "png and zip": lambda: flat + b"PK\x05\x06" + bytes(18),
        "jpeg and zip": lambda: jpeg + b"PK\x05\x06" + bytes(18),
        "jpeg and jpeg": lambda: jpeg + jpeg,
        "jpeg with php": lambda: with_segment(jpeg, 0xFE, b"<?php system('true'); ?>"),
        "jpeg of 500 comments": lambda: with_segment(jpeg, 0xFE, bytes(100), 500),
        "jpeg of 40 profiles": lambda: with_segment(jpeg, 0xE2, icc, 40),
        "exif that loops": lambda: with_segment(jpeg, 0xE1, exif(loop)),
        "exif of 4 billion": lambda: with_segment(jpeg, 0xE1, exif(endless)),
        "exif of noise": lambda: with_segment(jpeg, 0xE1, exif(random.Random(2).randbytes(60_000))),
        "pictures in one": lambda: with_segment(
            jpeg, 0xE2, b"MPF\x00" + random.Random(3).randbytes(200)
        ),
        "cmyk": lambda: encode(colour.convert("CMYK"), "JPEG"),
        "progressive": lambda: encode(colour, "JPEG", progressive=True),
        "arithmetic": lambda: jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1),
        "lossless": lambda: jpeg.replace(b"\xff\xc0", b"\xff\xc3", 1),
        "12 bit": lambda: jpeg.replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc1\x00\x0b\x0c", 1),
        "no tables": lambda: jpeg.replace(b"\xff\xdb", b"\xff\xfe"),
        "no codes": lambda: jpeg.replace(b"\xff\xc4", b"\xff\xfe"),
        "two frames": lambda: (
            jpeg[: frame(jpeg)] + jpeg[frame(jpeg) : frame(jpeg) + 13] + jpeg[frame(jpeg) :]
        ),
        "larger than it is": lambda: of_size(jpeg, 5000, 5000),
        "smaller than it is": lambda: of_size(jpeg, 3, 3),
        "wide jpeg": lambda: of_size(jpeg, 65_500, 900),
        "no end": lambda: jpeg[:-2],
        "dicom": dicom,
        "dicom of a program": lambda: dicom(preamble=b"MZ".ljust(128, b"\x00")),
        "dicom of a tiff": lambda: dicom(preamble=b"II*\x00\x08".ljust(128, b"\x00")),
        "dicom, nested": lambda: dicom(extra=nested(2000)),
        "dicom of 20,000 elements": lambda: dicom(
            extra=b"".join(element(0x21, n, b"SH", b"x") for n in range(20_000))
        ),
    }


def heavy() -> dict[str, Make]:
    """Small files of as many pixels as are accepted, which cost what an image can cost at most."""
    return {
        "32 megapixels": lambda: png(8000, 4000),
        "32 megapixels of rgba": lambda: png(8000, 4000, RGBA),
        "32 megapixels of 16 bit": lambda: png(8000, 4000, depth=16),
        "32 megapixels of 16 bit rgb": lambda: png(8000, 4000, RGB, 16),
        "32 megapixels, progressive": lambda: encode(
            Image.new("RGB", (8000, 4000)), "JPEG", progressive=True
        ),
        "32 megapixels of cmyk, progressive": lambda: encode(
            Image.new("CMYK", (8000, 4000)), "JPEG", progressive=True
        ),
        "1000 scans": lambda: many_scans(2000, 2000, 1000),
    }


def mutants(rng: random.Random) -> Iterator[bytes]:
    """Images with bits flipped, parts cut, repeated, or taken from another; without end."""
    grey = image()
    sources = [
        encode(grey, "JPEG"),
        encode(grey.convert("RGB"), "JPEG", progressive=True, optimize=True),
        encode(grey, "PNG"),
        encode(grey.convert("P"), "PNG", transparency=7),
        encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 256), "PNG"),
        dicom(),
    ]
    while True:
        data = bytearray(rng.choice(sources))
        is_png = data.startswith(SIGNATURE)
        for _ in range(rng.choice((1, 1, 2, 5))):
            _mutate(data, rng, sources)
        # Half the PNGs get right checksums, so that their decoder sees what was changed.
        yield _check_again(bytes(data)) if is_png and rng.random() < 0.5 else bytes(data)


def _mutate(data: bytearray, rng: random.Random, sources: list[bytes]) -> None:
    # Half of it in the headers, where most of the decisions are made.
    end = len(data) if rng.random() < 0.5 else min(len(data), 700)
    at = rng.randrange(max(end, 1))
    length = rng.choice((1, 4, 30, 1000))
    match rng.randrange(7):
        case 0:
            for _ in range(rng.choice((1, 3, 20))):
                if data:
                    data[rng.randrange(min(end, len(data)))] ^= 1 << rng.randrange(8)
        case 1:
            del data[at:]
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        case 4:
            data[at : at + length] = rng.randbytes(length)
        case 5:
            data[at : at + length] = bytes([rng.choice((0, 0xFF))]) * length
        case 6:
            other = rng.choice(sources)
            data[at:] = other[rng.randrange(len(other)) :]


def _check_again(data: bytes) -> bytes:
    """A PNG with the checksum of each chunk made right, as far as its chunks go."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts) + data[at:]
