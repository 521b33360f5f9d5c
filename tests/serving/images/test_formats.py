import pytest

from cxr_serving.images import formats


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF89a", "GIF"),
        (b"II*\0", "TIFF"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypmp42", None),
        (b"BM\x10\0\0\0\0\0\0\0", "BMP"),
        (b"BM is how this text begins", None),
        (b"text", None),
        (b"", None),
    ],
)
def test_a_file_is_known_by_how_it_begins(head: bytes, kind: str | None) -> None:
    assert formats.kind(head) == kind


@pytest.mark.parametrize("preamble", [bytes(128), b"II*\0".ljust(128, b"\0")])
def test_the_magic_number_of_dicom_counts_before_any_preamble(preamble: bytes) -> None:
    assert formats.kind(preamble + b"DICM") == "DICOM"


def test_the_directory_of_a_medium_is_told_apart_from_an_image() -> None:
    meta = bytes(128) + b"DICM\x02\0\x02\0UI\x14\0"
    assert formats.is_dicomdir(meta + b"1.2.840.10008.1.3.10")
    assert not formats.is_dicomdir(meta + b"1.2.840.10008.5.1.4.1.1.1")
