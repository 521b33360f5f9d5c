"""docker-compose.yml as plain processes, for a machine without a container engine: `make stack`.

Each service gets what a container would give it: its own root file system, processes, network and
limits, by Linux namespaces and control groups. What the images hold comes from this checkout and
from Debian's packages, or from the roots of built images.
"""
