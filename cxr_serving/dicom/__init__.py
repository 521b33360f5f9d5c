"""Reads DICOM images, in a process of their own that can do little and is easily replaced."""

from cxr_serving.dicom.header import is_dicom
from cxr_serving.dicom.reader import DicomReader

__all__ = ["DicomReader", "is_dicom"]
