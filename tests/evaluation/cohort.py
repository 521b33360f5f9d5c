"""120 made-up images, 40 of each class, with names in the style of the Kermany set."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from cxr_assets.evaluation.images import Images
from cxr_assets.radiographs.naming import parse

CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
TARGETS = np.repeat([0, 1, 2], 40)


def images(**columns: object) -> Images:
    """All of one size; ten patients have four bacterial images each, all others have one image."""
    names = [f"PNEUMONIA/person{n // 4}_bacteria_{n}.jpeg" for n in range(40)]
    names += [f"NORMAL/{'NORMAL2-' if n % 2 else ''}IM-{n}-0001.jpeg" for n in range(40)]
    names += [f"PNEUMONIA/person{n}_virus_{n}.jpeg" for n in range(40)]
    patients = [f"folder/{parse(PurePosixPath(name)).patient}" for name in names]
    table = pd.DataFrame(
        {
            "path": names,
            "class": [CLASSES[target] for target in TARGETS],
            "patient": patients,
            "sha256": [str(number) for number in range(120)],
            "width": 1000,
            "height": 800,
            "source": "folder",
            **dict.fromkeys(("site", "acquired", "view", "sex")),
            "age": np.nan,
            **columns,
        }
    )
    return Images(Path("images"), table, "made up", None, False, {})
