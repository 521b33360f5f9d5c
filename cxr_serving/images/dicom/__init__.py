"""Reads each DICOM image in a process of its own, which has few rights."""

from cxr_serving.images.dicom.reader import DicomReader
from cxr_serving.images.dicom.recognition import is_dicom
from cxr_serving.images.dicom.rejection import DicomUnavailable

__all__ = ["DicomReader", "DicomUnavailable", "is_dicom"]
