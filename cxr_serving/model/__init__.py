"""What a model is on disk, and how it answers."""

DISCLAIMER = "For research and education only. Not a medical device; not for clinical decisions."
