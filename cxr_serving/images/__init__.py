"""From the bytes of a file to the pixels of an image: JPEG, PNG and DICOM."""
