"""From the bytes of a file to the pixels of an image."""
