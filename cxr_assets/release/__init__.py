"""The release: a bundle with its model card and figures, and its way to the Hugging Face Hub."""
