"""The images of the Dockerfile: built, looked into, and started without a container engine."""
