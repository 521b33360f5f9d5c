"""Makes DICOM files: radiographs as devices write them, and files that no device should write."""

import io
import struct

import gdcm
import numpy as np
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSTransferSyntaxes,
    generate_uid,
)

from cxr_serving.images.dicom import is_dicom
from cxr_serving.images.dicom.sandbox import read

# A tag of a real file names a patient; this one must appear in no message.
PATIENT = "Doe^Jane"


def dataset(pixels: np.ndarray, **elements: object) -> Dataset:
    """The elements of a radiograph whose stored values are ``pixels`` [H, W], of 8 or 16 bits.

    Elements are set by keyword; None removes one.
    """
    radiograph = Dataset()
    radiograph.SOPClassUID = DigitalXRayImageStorageForPresentation
    radiograph.SOPInstanceUID = generate_uid()
    radiograph.PatientName = PATIENT
    radiograph.Modality = "DX"
    radiograph.SamplesPerPixel = 1
    radiograph.PhotometricInterpretation = "MONOCHROME2"
    radiograph.Rows, radiograph.Columns = pixels.shape
    radiograph.BitsAllocated = 8 * pixels.itemsize
    radiograph.BitsStored = radiograph.BitsAllocated
    radiograph.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in elements.items():
        if value is None:
            delattr(radiograph, keyword)
        else:
            setattr(radiograph, keyword, value)
    if "HighBit" not in elements:
        radiograph.HighBit = radiograph.BitsStored - 1
    radiograph.PixelData = pixels.tobytes()
    radiograph["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return radiograph


def encode(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The bytes of a file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def dicom(pixels: np.ndarray, syntax: UID = ExplicitVRLittleEndian, **elements: object) -> bytes:
    """The bytes of an uncompressed file."""
    return encode(dataset(pixels, **elements), syntax)


def compressed(pixels: np.ndarray, syntax: UID, frame: bytes, **elements: object) -> bytes:
    """The bytes of a file that holds ``frame``, and says that it holds ``pixels``."""
    radiograph = dataset(pixels, **elements)
    radiograph.PixelData = encapsulate([frame])
    radiograph["PixelData"].VR = "OB"
    radiograph["PixelData"].is_undefined_length = True
    return encode(radiograph, syntax)


def image(pixels: np.ndarray, file_format: str, **options: object) -> bytes:
    """``pixels`` as Pillow compresses them."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, file_format, **options)
    return stream.getvalue()


def lossless(pixels: np.ndarray, syntax: UID, bits: int | None = None) -> bytes:
    """``pixels`` of ``bits`` bits as GDCM compresses them, by JPEG Lossless or JPEG-LS."""
    size = 8 * pixels.itemsize
    bits = bits or size
    codec = gdcm.JPEGLSCodec() if syntax in JPEGLSTransferSyntaxes else gdcm.JPEGCodec()
    codec.SetLossless(True)
    codec.SetDimensions((pixels.shape[1], pixels.shape[0], 1))
    grey = gdcm.PhotometricInterpretation.MONOCHROME2
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    # Last: it hands on to a codec of so many bits what was set before.
    signed = int(pixels.dtype.kind == "i")
    codec.SetPixelFormat(gdcm.PixelFormat(1, size, bits, bits - 1, signed))
    plain, packed = gdcm.DataElement(), gdcm.DataElement()
    plain.SetByteStringValue(pixels.tobytes())
    assert codec.Code(plain, packed)
    frame = packed.GetSequenceOfFragments().GetFragment(0).GetByteValue().GetBuffer()
    return frame.encode("utf-8", "surrogateescape")


def rle(pixels: np.ndarray) -> bytes:
    """An RLE frame by PS3.5 G: bytes from the highest down, each a segment of literal runs."""
    planes = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(-1, 1).view(np.uint8).T
    segments = []
    for plane in planes:
        data = plane.tobytes()
        runs = [data[start : start + 128] for start in range(0, len(data), 128)]
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\0" * (len(segment) % 2))
    return rle_frame(segments)


def rle_frame(segments: list[bytes]) -> bytes:
    """An RLE frame of encoded segments."""
    offsets, position = [], 64
    for segment in segments:
        offsets.append(position)
        position += len(segment)
    header = struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def lut(entries: int, first: int, bits: int, data: bytes) -> Dataset:
    """An item of a sequence of look-up tables."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries % 2**16, first, bits])
    item.add_new("LUTData", "OW", data)
    return item


HEIGHT, WIDTH = 30, 40


def grey(bits: int = 12, dtype: type = np.uint16, seed: int = 0) -> np.ndarray:
    """Noise over all values of ``bits`` bits."""
    low = -(2 ** (bits - 1)) if np.issubdtype(dtype, np.signedinteger) else 0
    return np.random.default_rng(seed).integers(low, low + 2**bits, (HEIGHT, WIDTH)).astype(dtype)


# What follows decodes in this process: the child's work is a function of bytes.

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
# Every second value of 12 bits, so that a window and the range of the pixels differ.
GREY = np.random.default_rng(0).integers(1000, 3000, (30, 40)).astype(np.uint16)
BYTES = (GREY >> 4).astype(np.uint8)
LITTLE_ENDIAN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def shown(data: bytes) -> np.ndarray:
    """The grey levels of a file, [H, W]."""
    assert is_dicom(data)
    return read(data, max_pixels=10**6).astype(int)


def stretched(values: np.ndarray) -> np.ndarray:
    """The lowest value black, the highest white."""
    values = values.astype(np.float64)
    return np.rint(255 * (values - values.min()) / np.ptp(values)).astype(int)


def cr(
    pixels: np.ndarray = GREY, syntax: UID = ExplicitVRLittleEndian, **elements: object
) -> bytes:
    """An uncompressed file of 12 bits."""
    return dicom(pixels, syntax, **{"BitsStored": 12, **elements})


def table(data: bytes, entries: int = 4096, first: int = 0, bits: int = 12) -> Sequence:
    """A sequence of one look-up table."""
    return Sequence([lut(entries, first, bits, data)])


def words(values: np.ndarray) -> bytes:
    """The data of a table of 16 bits."""
    return np.asarray(values).astype("<u2").tobytes()
