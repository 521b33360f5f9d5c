"""What a model is on disk, and how it answers."""
