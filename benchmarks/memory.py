"""Peak memory of an epoch of ``scratch``: ``python -m benchmarks.memory /path/to/chest_xray``."""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import machine

BAR = 3.0


def main() -> None:
    """Prepare the images and train for an epoch in a child process; print its peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="?", type=Path, help="radiographs in Kaggle's layout")
    folder = parser.parse_args().images
    print(f"\nPeak memory of experiment=scratch\n{machine()}\n")
    if folder is None or not folder.is_dir():
        reason = "no folder of radiographs was named" if folder is None else f"no folder {folder}"
        print(f"skipped: {reason} (make bench IMAGES=/path/to/chest_xray)")
        return
    with TemporaryDirectory() as temporary:
        overrides = ["experiment=scratch", f"data.folder='{folder.resolve()}'"]
        subprocess.run(
            [Path(sys.executable).with_name("cxr"), "train", *overrides, "trainer.max_epochs=1"],
            env={**os.environ, "CXR_DATA_ROOT": temporary, "CXR_OVERRIDES": ""},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**30
    print("| | GiB | bar | |")
    print("|---|---:|---:|---|")
    verdict = "" if peak < BAR else "above the bar"
    print(f"| preparation and one epoch | {peak:.2f} | {BAR:g} | {verdict} |")


if __name__ == "__main__":
    main()
