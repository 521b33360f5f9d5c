"""Reads DICOM images in a child process with few rights, which is replaced when it fails."""

from cxr_serving.images.dicom.reader import DicomReader
from cxr_serving.images.dicom.recognition import is_dicom
from cxr_serving.images.dicom.rejection import DicomUnavailable

__all__ = ["DicomReader", "DicomUnavailable", "is_dicom"]
