"""Values of elements, read as forgivingly as viewers do."""

import numpy as np
import pytest
from dicoms import GREY, LITTLE_ENDIAN, cr, shown, stretched
from pydicom.uid import UID

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
@pytest.mark.parametrize(
    ("written", "meant"), [("2000,5", "2000.5"), ("  2000", "2000"), ("2e3   ", "2000")]
)
def test_numbers_are_read_as_people_write_them(written: str, meant: str, syntax: UID) -> None:
    data = cr(syntax=syntax, WindowCenter="987654", WindowWidth=3000)
    said = data.replace(b"987654", written.ljust(6).encode())
    assert np.array_equal(shown(said), shown(cr(WindowCenter=meant, WindowWidth=3000)))


@pytest.mark.parametrize("word", [b"nan   ", b"inf   ", b"Doe^J ", b"      "])
def test_a_window_that_is_no_number_is_ignored(word: bytes) -> None:
    data = cr(WindowCenter="987654", WindowWidth=3000).replace(b"987654", word)
    assert np.array_equal(shown(data), stretched(GREY))
