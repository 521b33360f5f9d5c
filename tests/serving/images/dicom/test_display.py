"""How DICOM images are shown: as a viewer shows them at first, whatever devices write."""

import dicoms
import numpy as np
import pytest
from dicoms import (
    GREY,
    HEIGHT,
    LITTLE_ENDIAN,
    RAMP,
    WIDTH,
    cr,
    dicom,
    grey,
    lut,
    shown,
    stretched,
    table,
    words,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ImplicitVRLittleEndian,
)

from cxr_serving.images.dicom import DicomReader, is_dicom
from cxr_serving.images.dicom.rejection import Rejected

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given


LAST = 2**12 - 1


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(8, np.uint8), (8, np.int8), (10, np.uint16), (12, np.int16), (16, np.uint16), (16, np.int16)],
)
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_every_depth_is_stretched_over_what_it_holds(
    reader: DicomReader, bits: int, dtype: type, syntax: UID | None
) -> None:
    pixels = grey(bits, dtype)
    data = dicom(pixels, *[syntax] if syntax else [], BitsStored=bits)
    assert is_dicom(data)
    actual = reader.read(data)
    assert actual.dtype == np.uint8
    assert np.array_equal(actual, stretched(pixels))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000.5, 333), (700, 1), (0, 50.25)])
def test_windows_are_those_of_pydicom(
    reader: DicomReader, function: str | None, center: float, width: float
) -> None:
    window = {"WindowCenter": center, "WindowWidth": width}
    if function:
        window["VOILUTFunction"] = function
    dataset = dicoms.dataset(RAMP, BitsStored=12, **window)
    expected = np.rint(255 * (apply_windowing(RAMP, dataset) / LAST)).astype(np.uint8)
    assert np.array_equal(reader.read(dicoms.encode(dataset)), expected)


def test_the_linear_window_is_that_of_the_standard(reader: DicomReader) -> None:
    # PS3.3 C.11.2.1.2.1, with c = 2048 and w = 4096 over 12 bits: the identity but for rounding.
    actual = reader.read(dicom(RAMP, BitsStored=12, WindowCenter=2048, WindowWidth=4096))
    assert np.array_equal(actual, np.rint(RAMP / LAST * 255))


def test_the_first_of_several_windows_is_shown(reader: DicomReader) -> None:
    one = dicom(RAMP, BitsStored=12, WindowCenter=700, WindowWidth=300)
    two = dicom(RAMP, BitsStored=12, WindowCenter=[700, 3000], WindowWidth=[300, 100])
    assert np.array_equal(reader.read(one), reader.read(two))


@pytest.mark.parametrize("slope", [0.5, -2.0])
def test_a_window_is_in_rescaled_values(reader: DicomReader, slope: float) -> None:
    pixels = grey()
    actual = reader.read(
        dicom(
            pixels,
            BitsStored=12,
            RescaleSlope=slope,
            RescaleIntercept=-1000,
            WindowCenter=-900,
            WindowWidth=1000,
            VOILUTFunction="LINEAR_EXACT",
        )
    )
    shades = (pixels * slope - 1000 + 900) / 1000 + 0.5
    assert np.array_equal(actual, np.rint(255 * shades.clip(0, 1)))


def test_without_a_window_rescaled_values_are_stretched(reader: DicomReader) -> None:
    pixels = grey()
    actual = reader.read(dicom(pixels, BitsStored=12, RescaleSlope=-3, RescaleIntercept=7))
    assert np.array_equal(actual, stretched(-3.0 * pixels + 7))


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_a_look_up_table_goes_before_a_window(
    reader: DicomReader, bits: int, syntax: UID | None
) -> None:
    table = np.random.default_rng(2).integers(0, 2**bits, 1000)
    item = lut(1000, 500, bits, table.astype("<u2").tobytes())
    data = dicom(
        RAMP,
        *[syntax] if syntax else [],
        BitsStored=12,
        VOILUTSequence=Sequence([item]),
        WindowCenter=100,
        WindowWidth=200,
    )
    expected = table[(RAMP.astype(int) - 500).clip(0, 999)] / (2**bits - 1)
    assert np.array_equal(reader.read(data), np.rint(255 * expected))


def test_a_table_of_bytes_with_a_negative_start(reader: DicomReader) -> None:
    table = np.random.default_rng(3).integers(0, 256, 601).astype(np.uint8)
    pixels = grey(12, np.int16)
    item = lut(601, -300, 8, table.tobytes() + b"\0")
    actual = reader.read(dicom(pixels, BitsStored=12, VOILUTSequence=Sequence([item])))
    assert np.array_equal(actual, table[(pixels.astype(int) + 300).clip(0, 600)])


def test_a_table_of_all_16_bits(reader: DicomReader) -> None:
    table = np.arange(2**16 - 1, -1, -1, dtype="<u2")
    pixels = grey(16)
    item = lut(2**16, 0, 16, table.tobytes())
    actual = reader.read(dicom(pixels, VOILUTSequence=Sequence([item])))
    assert np.array_equal(actual, np.rint(255 * (table[pixels] / (2**16 - 1))))


def test_a_modality_table_goes_before_the_window(reader: DicomReader) -> None:
    table = (np.arange(4096) ** 2 // 4096).astype("<u2")
    data = dicom(
        RAMP,
        BitsStored=12,
        ModalityLUTSequence=Sequence([lut(4096, 0, 16, table.tobytes())]),
        WindowCenter=1000,
        WindowWidth=500,
        VOILUTFunction="LINEAR_EXACT",
    )
    expected = ((table[RAMP] - 1000.0) / 500 + 0.5).clip(0, 1)
    assert np.array_equal(reader.read(data), np.rint(255 * expected))


@pytest.mark.parametrize("shape", [False, True])
@pytest.mark.parametrize("window", [False, True])
def test_both_polarities_look_the_same(reader: DicomReader, shape: bool, window: bool) -> None:
    def data(pixels: np.ndarray, photometric: str, center: float, lut_shape: str) -> bytes:
        elements: dict[str, object] = {"PresentationLUTShape": lut_shape} if shape else {}
        if window:
            elements |= {"WindowCenter": center, "WindowWidth": 1024}
            elements["VOILUTFunction"] = "LINEAR_EXACT"
        return dicom(pixels, BitsStored=12, PhotometricInterpretation=photometric, **elements)

    bright = reader.read(data(RAMP, "MONOCHROME2", 1000, "IDENTITY"))
    dark = reader.read(data(LAST - RAMP, "MONOCHROME1", LAST - 1000, "INVERSE"))
    assert np.array_equal(bright, dark)
    assert (bright[0, 0], bright[-1, -1]) == (0, 255)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "padding"),
    [
        (np.uint16, {"PixelPaddingValue": 4095}),
        (np.int16, {"PixelPaddingValue": -2048}),
        (np.int16, {"PixelPaddingValue": -2048, "PixelPaddingRangeLimit": -2001}),
        (np.int16, {"PixelPaddingValue": -2001, "PixelPaddingRangeLimit": -2048}),
    ],
)
def test_padding_is_black_and_does_not_change_the_greys(
    reader: DicomReader, photometric: str, dtype: type, padding: dict[str, int]
) -> None:
    inside = np.random.default_rng(4).integers(100, 900, (HEIGHT, WIDTH)).astype(dtype)
    framed = np.pad(inside, 5, constant_values=padding["PixelPaddingValue"])
    data = dicom(framed, BitsStored=12, PhotometricInterpretation=photometric, **padding)
    alone = dicom(inside, BitsStored=12, PhotometricInterpretation=photometric)
    assert np.array_equal(reader.read(data), np.pad(reader.read(alone), 5))


WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


@pytest.mark.parametrize("width", [0, -5, "", None])
def test_a_window_without_width_is_ignored(width: float | str | None) -> None:
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
def test_an_empty_table_is_ignored(keyword: str) -> None:
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
def test_a_wrong_length_in_the_descriptor_is_ignored(entries: int) -> None:
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


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
def test_a_repeated_padding_value_counts_once(syntax: UID) -> None:
    framed = np.pad(GREY, 5, constant_values=4095)
    data = cr(framed, syntax, PixelPaddingValue=[4095, 4095])
    assert np.array_equal(shown(data), np.pad(stretched(GREY), 5))


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
def test_any_window_and_slope_is_shown_or_rejected(
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
