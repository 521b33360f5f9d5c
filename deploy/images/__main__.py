"""Both images of the Dockerfile, built, looked into, and started as docker-compose.yml says.

make images
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.images import contents, engine
from deploy.stack import composition
from deploy.stack.images import CHECKOUT

_MEGABYTE = 10**6
# Of the image that is rolled out to each node; that of the pipeline is as large as torch.
_MOST_MEGABYTES = {"serving": 500}


def main() -> int:
    """Build, look into and start the images; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images", description=__doc__)
    parser.add_argument(
        "--patience", type=float, default=1, metavar="FACTOR",
        help="how many times longer the start may take, on a busy machine",
    )  # fmt: skip
    parser.add_argument(
        "options", nargs="*",
        help="of the engine's `build`, after --, such as --build-arg BASE=debian",
    )  # fmt: skip
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: only root may make the owners and roots of the images: sudo make images")
    builder = engine.find()
    print(f"{builder.name} builds", flush=True)
    roots = {}
    for stage, image in _images().items():
        builder.build(image, stage, CHECKOUT, given.options)
        roots[stage] = CHECKOUT / "build" / "images" / stage
        shutil.rmtree(roots[stage], ignore_errors=True)
        builder.unpack(image, roots[stage])
    faults = [fault for stage, root in roots.items() for fault in _faults(stage, root)]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        return 1
    command = [sys.executable, "-m", "deploy.stack", "--start", f"--patience={given.patience}"]
    command += [f"--root={stage}={root}" for stage, root in roots.items()]
    return subprocess.run(command, check=False).returncode


def _images() -> dict[str, str]:
    """The name of each image that docker-compose.yml builds, by its stage of the Dockerfile."""
    services = composition.read(CHECKOUT / "docker-compose.yml", {}).services.values()
    return {service.build.target: service.image for service in services if service.build}


def _faults(stage: str, root: Path) -> list[str]:
    megabytes = contents.size(root) / _MEGABYTE
    print(f"{stage}: {megabytes:.0f} MB in {root}", flush=True)
    found = [f"{stage}: {fault}" for fault in contents.faults(root)]
    most = _MOST_MEGABYTES.get(stage)
    if most is not None and megabytes > most:
        found.append(f"{stage}: {megabytes:.0f} MB, more than the {most} MB that it may have")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except engine.EngineError as error:
        sys.exit(f"error: {error}")
