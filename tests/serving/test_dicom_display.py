"""How DICOM images are shown: as a viewer shows them at first, whatever devices write."""

import numpy as np
import pytest
from dicoms import GREY, LITTLE_ENDIAN, RAMP, cr, lut, shown, stretched, table, words
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from cxr_serving.images.dicom.rejection import Rejected

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given


WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


@pytest.mark.parametrize("width", [0, -5, "", None])
def test_a_window_of_no_width_is_none(width: float | str | None) -> None:
    elements = {"WindowCenter": 0} | ({} if width is None else {"WindowWidth": width})
    assert np.array_equal(shown(cr(**elements)), stretched(GREY))


def test_the_first_window_that_has_a_width_is_shown() -> None:
    windows = cr(WindowCenter=[0, 2000], WindowWidth=[0, 3000])
    assert np.array_equal(shown(windows), shown(cr(**WINDOW)))


def test_a_window_below_1_is_in_small_units() -> None:
    units = {"RescaleSlope": "0.0001", "RescaleIntercept": "0"}
    data = cr(RAMP, WindowCenter="0.2", WindowWidth="0.3", **units)
    expected = np.rint(255 * ((RAMP * 1e-4 - 0.2) / 0.3 + 0.5).clip(0, 1))
    assert np.abs(shown(data) - expected).max() <= 1
    # Narrower than the step from one value to the next, it would show black and white alone.
    assert np.array_equal(shown(cr(WindowCenter=2000, WindowWidth="0.5")), stretched(GREY))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
@pytest.mark.parametrize(
    ("written", "meant"), [("2000,5", "2000.5"), ("  2000", "2000"), ("2e3   ", "2000")]
)
def test_a_number_may_be_written_as_people_do(written: str, meant: str, syntax: UID) -> None:
    data = cr(syntax=syntax, WindowCenter="987654", WindowWidth=3000)
    said = data.replace(b"987654", written.ljust(6).encode())
    assert np.array_equal(shown(said), shown(cr(WindowCenter=meant, WindowWidth=3000)))


@pytest.mark.parametrize("word", [b"nan   ", b"inf   ", b"Doe^J ", b"      "])
def test_what_is_no_number_is_no_window(word: bytes) -> None:
    data = cr(WindowCenter="987654", WindowWidth=3000).replace(b"987654", word)
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("linear", "LINEAR"), ("Sigmoid", "SIGMOID"), ("linear_exact", "LINEAR_EXACT"), ("CUBIC", "")],
)
def test_the_function_of_a_window_in_any_case(written: str, meant: str) -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 9}
    assert np.array_equal(
        shown(cr(VOILUTFunction=written, **window)), shown(cr(VOILUTFunction=meant, **window))
    )


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_an_empty_item_of_tables_is_none(keyword: str) -> None:
    only_described = Dataset()
    only_described.LUTDescriptor = [4096, 0, 12]
    for empty in (Dataset(), only_described):
        data = cr(**WINDOW, **{keyword: Sequence([empty])})
        assert np.array_equal(shown(data), shown(cr(**WINDOW)))
        data = cr(**{keyword: Sequence([empty])})
        assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("held", [8, 10, 12, 14])
@pytest.mark.parametrize("said", [8, 12, 16])
def test_a_table_is_shown_over_the_bits_that_it_holds(said: int, held: int) -> None:
    curve = np.rint((2**held - 1) * np.sqrt(np.arange(4096) / 4095))
    data = cr(RAMP, VOILUTSequence=table(words(curve), bits=said))
    expected = np.rint(255 * curve / (2**held - 1)).reshape(RAMP.shape)
    assert np.array_equal(shown(data), expected)


@pytest.mark.parametrize("entries", [4096, 4097, 4000])
def test_a_table_is_as_long_as_it_is(entries: int) -> None:
    right = cr(RAMP, VOILUTSequence=table(words(np.arange(4096))))
    data = cr(RAMP, VOILUTSequence=table(words(np.arange(4096)), entries))
    assert np.array_equal(shown(data), shown(right))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_first_value_written_as_unsigned_is_the_signed_one(keyword: str, syntax: UID) -> None:
    pixels = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    item = lut(4096, 0, 12, words(np.arange(4096)))
    item.add_new("LUTDescriptor", "US", [4096, 2**16 - 2048, 12])
    data = cr(pixels, syntax, **{keyword: Sequence([item])})
    assert np.array_equal(shown(data), stretched(RAMP))


@pytest.mark.parametrize("elements", [{"RescaleSlope": 0, "RescaleIntercept": 7}, {}])
@pytest.mark.parametrize("frames", [None, 0, 1, ""])
def test_a_slope_and_a_number_of_frames_of_0_say_nothing(
    elements: dict[str, object], frames: object
) -> None:
    said = {} if frames is None else {"NumberOfFrames": frames}
    assert np.array_equal(shown(cr(**WINDOW, **elements, **said)), shown(cr(**WINDOW)))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
def test_a_padding_value_said_twice_is_said_once(syntax: UID) -> None:
    framed = np.pad(GREY, 5, constant_values=4095)
    data = cr(framed, syntax, PixelPaddingValue=[4095, 4095])
    assert np.array_equal(shown(data), np.pad(stretched(GREY), 5))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "monochrome2 "])
@pytest.mark.parametrize("shape", ["", "IDENTITY", "INVERSE", "LIN OD"])
def test_the_presentation_decides_what_is_white_where_there_is_one(
    photometric: str, shape: str
) -> None:
    data = cr(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    inverse = shape == "INVERSE" or (shape != "IDENTITY" and photometric == "MONOCHROME1")
    expected = 4095 - GREY if inverse else GREY
    assert np.abs(shown(data) - stretched(expected)).max() <= 1


def test_counts_that_are_said_twice_or_not_at_all() -> None:
    data = cr(Rows=[30, 30], SamplesPerPixel=None)
    assert np.array_equal(shown(data), stretched(GREY))


@settings(deadline=None, max_examples=60)
@given(
    center=st.floats(-1e6, 1e6),
    width=st.floats(-1e6, 1e6),
    slope=st.floats(-1e3, 1e3),
    entries=st.integers(0, 2**16 - 1),
    first=st.integers(0, 2**16 - 1),
    bits=st.integers(0, 2**16 - 1),
    short=st.integers(0, 50),
)
def test_whatever_is_said_of_shades_is_shown_or_rejected(
    center: float, width: float, slope: float, entries: int, first: int, bits: int, short: int
) -> None:
    item = lut(entries, 0, 12, words(np.arange(50))[: 2 * short])
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    elements = {"WindowCenter": f"{center:.6g}", "WindowWidth": f"{width:.6g}"}
    elements |= {"RescaleSlope": f"{slope:.6g}", "RescaleIntercept": "3"}
    for sequence in ({}, {"VOILUTSequence": Sequence([item])}):
        try:
            assert shown(cr(**elements, **sequence)).shape == GREY.shape
        except Rejected as rejected:
            assert rejected.rejection.name in ("BLANK", "SHADING")  # noqa: PT017
