"""The format of a file by its first bytes, whatever its name."""

# More than any signature needs, including the media storage SOP class of a DICOM file.
HEAD_BYTES = 1024

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"

_SIGNATURES = (
    (JPEG, "JPEG"),
    (PNG, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
)
# The brands of HEIF (ISO/IEC 23008-12) and AVIF that cameras write.
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"
)
# Media Storage Directory Storage: the table of contents of a DICOM medium, which holds no image.
_DICOMDIR = b"1.2.840.10008.1.3.10"


def kind(head: bytes) -> str | None:
    """The image format of a file that begins with ``head``, ``DICOM`` included; None if unknown."""
    if head[128:132] == b"DICM":  # first of all: the preceding 128 bytes may look like any format
        return "DICOM"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    # Two letters are little evidence: a BMP must have its reserved bytes, too.
    names = (name for signature, name in _SIGNATURES if head.startswith(signature))
    name = next(names, None)
    return None if name == "BMP" and head[6:10] != bytes(4) else name


def is_dicomdir(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is the directory of a DICOM medium."""
    return head[128:132] == b"DICM" and _DICOMDIR in head[132:HEAD_BYTES]
