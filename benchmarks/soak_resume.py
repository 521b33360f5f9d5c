"""Kills a training again and again, and compares what it comes to with one that nobody killed.

    python benchmarks/soak_resume.py [--kills 10] [--seed N]

Prints a line a kill; ends non-zero when a single bit of weights, optimiser or history differs, or
when SIGTERM does not stop a training within 10 s.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests" / "serving"))

import killing


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill and resume a training.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            killing.soak(
                Path(folder), arguments.kills, arguments.seed, lambda line: print(line, flush=True)
            )
        except (AssertionError, TimeoutError) as error:
            sys.exit(f"FAILED: {error}")
    print(f"{arguments.kills} kills, and not a bit of difference")


if __name__ == "__main__":
    main()
