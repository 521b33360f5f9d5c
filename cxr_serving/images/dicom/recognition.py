"""Whether bytes are a DICOM file, and where its elements begin."""

import struct

_MAGIC = b"DICM"
_PREAMBLE_BYTES = 128
# PS3.5 6.2, and of these the ones with a length of 32 bits (PS3.5 7.1.2).
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _LONG | frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED = 2**32 - 1
# A file without its header begins with file meta information or with the group that identifies it.
_FIRST_GROUPS = (2, 8)
# So many whole elements in a row, and no other file is meant.
_ELEMENTS = 4


def is_dicom(data: bytes) -> bool:
    """Whether ``data`` is DICOM: by its magic number, or by its elements where that is missing."""
    return elements_at(data) is not None


def elements_at(data: bytes) -> int | None:
    """Where the first element of a DICOM file begins; None in other files.

    PS3.10 7.1 leaves the 128 bytes before ``DICM`` to whoever writes the file: they are not looked
    at. Old archives write neither these bytes nor ``DICM`` nor, some of them, the meta information.
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
        if length == _UNDEFINED:  # a sequence, whose end is not looked for
            return found == _ELEMENTS
        position += length
    return position <= len(data)
