"""Volumes, and files and folders of this machine, in the root of a container."""

import os
import shlex
from pathlib import Path

from deploy.stack.composition import Mount
from deploy.stack.images import CHECKOUT, Image


class MountError(Exception):
    """A folder that docker-compose.yml mounts does not exist."""


class Mounts:
    """Where what is mounted lies on this machine.

    Args:
        volumes: folder of all volumes.
        project: whose files a service mounts by a path that begins with a dot.
    """

    def __init__(self, volumes: Path, project: Path) -> None:
        self._volumes = volumes
        self._project = project

    def source(self, service: str, mount: Mount, image: Image) -> Path:
        """What is mounted; a volume that is new takes the owner of what it is mounted on.

        Raises:
            MountError: the volume lacks the folder.
        """
        if mount.type == "bind":
            known = CHECKOUT / mount.source
            if known.is_file():
                return known
            place = self._project / mount.source
            place.mkdir(parents=True, exist_ok=True)
            return place
        volume = self._volumes / mount.source
        if not volume.exists():
            volume.mkdir(parents=True)
            if mount.target in image.folders:
                _, user, group, _ = image.user
                os.chown(volume, user, group)
        place = volume / mount.volume.subpath
        if not place.exists():
            raise MountError(
                f"{service}: the volume {mount.source} has no folder {mount.volume.subpath}"
            )
        return place


def bind(source: Path, target: str, read_only: bool) -> list[str]:
    """Shell commands that mount a file or folder below the working directory."""
    place, origin = f"$(at {shlex.quote(target)})", shlex.quote(str(source))
    if source.is_dir():
        make = f"mkdir -p {place}"
    else:
        make = f"mkdir -p $(dirname {place}) && touch {place}"
    lines = [f"{make} && mount --rbind {origin} {place}"]
    if read_only:
        lines.append(f"mount -o remount,ro,bind {place}")
    return lines
