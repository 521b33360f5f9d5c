"""What a model is on disk, and how it answers."""

DISCLAIMER = "For research and education only. Not a medical device; not for clinical decisions."
# An answer whose most probable class is below it is uncertain, unless a service is set otherwise.
CONFIDENCE = 0.7
