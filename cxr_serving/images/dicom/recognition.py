"""Recognises DICOM files, and finds where their elements begin."""

import struct

_MAGIC = b"DICM"
_PREAMBLE_BYTES = 128
# PS3.5 6.2, and of these the ones with a length of 32 bits (PS3.5 7.1.2).
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _LONG | frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED = 2**32 - 1
# A file without its header begins with file meta information or with the group that identifies it.
_FIRST_GROUPS = (2, 8)
# So many complete elements in a row do not occur in other files.
_ELEMENTS = 4


def is_dicom(data: bytes) -> bool:
    """Whether ``data`` is DICOM: by its magic number, or by its elements where that is missing."""
    return elements_at(data) is not None


def elements_at(data: bytes) -> int | None:
    """Where the first element of a DICOM file begins; None in other files.

    PS3.10 7.1 leaves the 128 bytes before ``DICM`` to the writer: they are ignored. Old archives
    omit them and ``DICM``, and some omit the meta information, too.
    """
    for start in (_PREAMBLE_BYTES, 0):
        if data[start : start + len(_MAGIC)] == _MAGIC:
            return start + len(_MAGIC)
    return 0 if _begins_with_elements(data) else None


def _begins_with_elements(data: bytes) -> bool:
    """Whether little-endian elements in ascending order follow one another from the first byte."""
    position, before, found = 0, (-1, -1), 0
    while found < _ELEMENTS:
        if len(data) < position + 8:
            return False
        group, element, vr, short = struct.unpack_from("<HH2sH", data, position)
        if (group, element) <= before or (not found and group not in _FIRST_GROUPS):
            return False
        before = (group, element)
        if vr in _LONG:
            if len(data) < position + 12:
                return False
            (length,) = struct.unpack_from("<L", data, position + 8)
            position += 12
        else:
            (implicit,) = struct.unpack_from("<L", data, position + 4)
            length = short if vr in _VRS else implicit
            position += 8
        found += 1
        if length == _UNDEFINED:  # a sequence; its end is not searched
            return found == _ELEMENTS
        position += length
    return position <= len(data)
