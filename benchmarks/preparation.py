"""Preparation against a loop of Pillow calls: ``python -m benchmarks.preparation``."""

import argparse
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from benchmarks import images
from benchmarks.measure import Comparison, interleaved, seconds, show
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.preparation import prepare


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        images.make(root / "images", arguments.images)
        experiment = compose("scratch", [f"data.folder={root / 'images'}"])
        data = experiment.data
        sources = raw.collect(data, experiment.classes, Layout(root / "data"), lambda line: None)
        rounds = itertools.count()

        def plain() -> None:
            target = root / f"plain-{next(rounds)}"
            target.mkdir()
            size = (data.image_size, data.image_size)
            for path in sources.inventory["path"]:
                image = Image.open(sources.locate("folder", path)).convert("L").resize(size)
                image.save(target / f"{Path(path).stem}.png")

        def ours() -> None:
            layout = Layout(root / f"ours-{next(rounds)}")
            prepare(layout, sources, data, experiment.classes, lambda line: None)

        figures = interleaved(lambda: seconds(plain), lambda: seconds(ours), arguments.repetitions)
    title = f"Preparation of {arguments.images} images of 1330 x 970 at {data.image_size} px"
    show(title, [Comparison("preparation", *figures, bar=3)])


if __name__ == "__main__":
    main()
