"""HTTP service for chest radiographs. For research and education; not a medical device."""
