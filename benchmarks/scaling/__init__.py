"""How cost grows with images, pixels, processes and requests."""
