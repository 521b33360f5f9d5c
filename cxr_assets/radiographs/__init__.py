"""Images: sources, names, preparation, patient-wise split, loading and augmentation."""
