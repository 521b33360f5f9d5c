"""Full-size images for the benchmarks, made up, in Kaggle's layout."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

# Of Kaggle's images, in pixels: 1330 x 970 on average, an image's width and height go together.
_WIDTH, _HEIGHT, _SPREAD = 1330, 970, 0.2


def make(root: Path, number: int, scale: float = 1) -> None:
    """Write ``number`` grey JPEGs, a tenth of them to ``test``, of smooth noise with grain.

    Their sizes vary about 1330 x 970 pixels times ``scale``, which is at most 2; with 1 a file has
    about 200 kB, as Kaggle's have.
    """
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 5, (4096, 4096)).astype(np.float32)
    for index in range(number):
        split = "test" if index % 10 == 0 else "train"
        kind = (index // 10 + index) % 3
        folder, name = (
            ("NORMAL", f"IM-{index:04}-0001.jpeg"),
            ("PNEUMONIA", f"person{index}_bacteria_{index}.jpeg"),
            ("PNEUMONIA", f"person{index}_virus_{index}.jpeg"),
        )[kind]
        size = scale * rng.uniform(1 - _SPREAD, 1 + _SPREAD)
        width, height = round(_WIDTH * size), round(_HEIGHT * size * rng.uniform(0.95, 1.05))
        rough = Image.fromarray(rng.integers(20, 235, (24, 32), dtype=np.uint8))
        smooth = rough.resize((width, height), Image.Resampling.BICUBIC)
        top, left = rng.integers(0, 4096 - height), rng.integers(0, 4096 - width)
        grey = np.asarray(smooth) + grain[top : top + height, left : left + width]
        path = root / split / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
        image.filter(ImageFilter.GaussianBlur(0.7)).save(path, quality=90)
