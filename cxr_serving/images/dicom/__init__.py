"""Reads DICOM images, in a process of their own that can do little and is easily replaced."""

from cxr_serving.images.dicom.reader import DicomReader
from cxr_serving.images.dicom.recognition import is_dicom
from cxr_serving.images.dicom.rejection import DicomUnavailable

__all__ = ["DicomReader", "DicomUnavailable", "is_dicom"]
