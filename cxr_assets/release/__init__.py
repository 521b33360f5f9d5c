"""The release: a bundle with model card and plots, and its upload to the Hugging Face Hub."""
