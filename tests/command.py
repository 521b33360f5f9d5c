"""The console command, as it is installed."""

import os
import sys
from pathlib import Path

CXR = Path(sys.executable).with_name("cxr")

_WITHOUT = """
import sys


class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name in {modules!r} else self.finder.find_spec(name, path, target)


sys.meta_path[:] = map(Without, sys.meta_path)
"""


def without(folder: Path, *modules: str) -> dict[str, str]:
    """This environment as if ``modules`` were not installed; ``folder`` gets what hides them."""
    (folder / "sitecustomize.py").write_text(_WITHOUT.format(modules=modules))
    return {**os.environ, "PYTHONPATH": str(folder)}
