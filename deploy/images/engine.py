"""Docker, Podman or Buildah, whichever builds images on this machine."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMES = ("docker", "podman", "buildah")
# Buildah runs a step without a runtime such as runc, as it must in a container. Its own limits are
# higher than root may set there, and each layer on its own would take the disk twice.
_CHROOT = (
    "--isolation=chroot",
    "--ulimit=nproc=20000:20000",
    "--ulimit=nofile=20000:20000",
    "--layers=false",
)


class EngineError(Exception):
    """No engine works here, or it fails."""


def find() -> "Engine":
    """The first engine that answers: the program of Docker may be there without its daemon.

    Raises:
        EngineError: none does.
    """
    for name in filter(shutil.which, _NAMES):
        if subprocess.run([name, "version"], capture_output=True, check=False).returncode == 0:
            return Engine(name)
    raise EngineError(f"no engine answers, of {', '.join(_NAMES)}: apt install buildah")


@dataclass(frozen=True)
class Engine:
    """A program that builds images and keeps them.

    Attributes:
        name: of the program.
    """

    name: str

    def build(self, image: str, stage: str, context: Path, options: Sequence[str]) -> None:
        """Build a stage of the Dockerfile in ``context`` as ``image``.

        Args:
            image: name of the image.
            stage: of the Dockerfile.
            context: folder with the Dockerfile and what it copies.
            options: of the engine's `build`, such as ``--build-arg BASE=debian``.

        Raises:
            EngineError: it fails, after it has said why.
        """
        own = _CHROOT if self.name == "buildah" else ()
        command = [
            self.name,
            "build",
            *own,
            *options,
            f"--target={stage}",
            f"--tag={image}",
            context,
        ]
        if subprocess.run(command, check=False).returncode != 0:
            raise EngineError(f"{self.name} does not build {image}")

    def unpack(self, image: str, folder: Path) -> None:
        """Write the files of an image, with their owners, into a new folder.

        Raises:
            EngineError: it fails.
        """
        folder.mkdir(parents=True)
        extract = ["tar", "--extract", "--numeric-owner", f"--directory={folder}"]
        if self.name == "buildah":
            container = self._answer("from", image)
            create = ["tar", "--create", f"--directory={self._answer('mount', container)}", "."]
        else:
            container = self._answer("create", image)
            create = [self.name, "export", container]
        try:
            with subprocess.Popen(create, stdout=subprocess.PIPE) as made:
                extracted = subprocess.run(extract, stdin=made.stdout, check=False)
            if made.returncode != 0 or extracted.returncode != 0:
                raise EngineError(f"the files of {image} cannot be written to {folder}")
        finally:
            self._answer("rm", container)

    def _answer(self, *command: str) -> str:
        done = subprocess.run([self.name, *command], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise EngineError(f"{self.name} {' '.join(command)} fails")
        return done.stdout.strip()
