"""HTTP service that classifies chest radiographs. For research and education; not a medical device."""
