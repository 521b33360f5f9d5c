"""What the gate of a bundle rejects, what each of its scores adds, and what it costs.

``python -m benchmarks.gate [DATA_ROOT] [--pictures FOLDER]`` judges the test images of a data root,
altered versions of them, and pictures that show no chest: those that scikit-learn, matplotlib and
scikit-image ship, where they are installed, and those of the folder, each whole and in fifteen
parts.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_assets.layout import Layout
from cxr_assets.radiographs import alteration, dataset
from cxr_assets.radiographs.alteration import ALTERATIONS, EXPECTED
from cxr_serving.model import descriptor, store
from cxr_serving.model.bundle import Rejections
from cxr_serving.model.gate import Gate
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import ImageError

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_SHIPPED = {
    "sklearn": "datasets/images",
    "matplotlib": "mpl-data/sample_data",
    "skimage": "data",
}
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_PARTS = 16
_BATCH = 64
_REPEATS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_root", type=Path, nargs="?", default=Path("data"))
    parser.add_argument("--pictures", type=Path, action="append", default=[])
    given = parser.parse_args()
    layout = Layout(given.data_root)
    directory = store.latest(layout.models("convnext_model"))
    if directory is None:
        print(f"no model in {given.data_root}: run make demo first")
        return
    predictor = Predictor(directory)
    if predictor.gate is None:
        print(f"{directory} has no gate")
        return
    rows = dataset.kept(layout.processed, "test")
    test = dataset.read(layout.processed, rows["file"].tolist(), predictor.preprocessing.size)
    pictures = np.stack(list(_pictures(given.pictures, predictor)))
    print(f"{directory}\n\nrejected, and for the right reason")
    kinds = {"test images": test, "pictures": pictures}
    kinds |= {kind: alteration.apply(kind, test, 1) for kind in ALTERATIONS}
    for name, images in kinds.items():
        _print(name, images, predictor)
    _ablation(predictor, predictor.gate, kinds)
    _agreement(predictor, kinds)
    _cost(predictor, predictor.gate, test[:1])


def _pictures(folders: list[Path], predictor: Predictor) -> Iterator[Images]:
    """Grey pictures [size, size], as the service decodes them, without those that are blank."""
    rng = np.random.default_rng(0)
    for package, folder in _SHIPPED.items():
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            folders = [*folders, Path(found.origin).parent / folder]
    files = (file for folder in folders for file in sorted(folder.rglob("*")))
    for file in (file for file in files if file.suffix.lower() in _SUFFIXES):
        with Image.open(file) as opened:
            picture = opened.convert("RGB").convert("L")
        for number in range(_PARTS):
            width, height = np.array(picture.size) * (rng.uniform(0.3, 1, 2) if number else 1)
            left, top = rng.uniform(0, np.array(picture.size) - (width, height))
            part = picture.crop((int(left), int(top), int(left + width), int(top + height)))
            try:
                yield predictor.preprocessing.resize(np.asarray(part))
            except ImageError:
                continue


def _batches(images: Images) -> Iterator[Images]:
    return (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))


def _print(name: str, images: Images, predictor: Predictor) -> None:
    reasons = [
        verdict.reasons
        for batch in _batches(images)
        for verdict in predictor.answer(batch).verdicts or []
    ]
    counted = Rejections.of(sum(map(bool, reasons)), len(reasons))
    low, high = counted.interval or (0.0, 1.0)
    right = sum(EXPECTED[name] in given for given in reasons) if name in EXPECTED else None
    print(
        f"{name:16}{counted.rejected:6} of {counted.images:<6}"
        f"{counted.rejected / counted.images:7.1%} ({low:.1%} to {high:.1%})"
        + (f"{right / counted.images:8.1%}" if right is not None else "")
    )


def _ablation(predictor: Predictor, gate: Gate, kinds: dict[str, Images]) -> None:
    """Share of each kind above the 99th percentile of the test images, by one score alone."""
    named: dict[str, Callable[[Floats, Floats], Floats]] = {
        "linear, descriptor": lambda described, features: described @ gate.chest,
        "distance, descriptor": lambda described, features: gate.picture.distance(described),
        "distance, features": lambda described, features: gate.features.distance(features),
        "both distances": lambda described, features: (
            gate.picture.distance(described) + gate.features.distance(features)
        ),
    }
    seen = {
        name: (descriptor.describe(images), _features(predictor, images))
        for name, images in kinds.items()
    }
    print("\nrejected by one score at 1 % of the test images")
    for name, score in named.items():
        limit = np.quantile(score(*seen["test images"]), 0.99)
        shares = {kind: float((score(*of) > limit).mean()) for kind, of in seen.items()}
        print(f"{name:22}" + " ".join(f"{kind} {share:.1%}" for kind, share in shares.items()))


def _features(predictor: Predictor, images: Images) -> Floats:
    return np.concatenate([predictor._forward(batch)[2] for batch in _batches(images)])


def _agreement(predictor: Predictor, kinds: dict[str, Images]) -> None:
    rounded = Predictor(predictor.directory, int8=True)
    if rounded.runtime != "onnx-int8":
        return
    same = [
        one == other
        for images in kinds.values()
        for one, other in zip(
            predictor.answer(images[:_BATCH]).verdicts or [],
            rounded.answer(images[:_BATCH]).verdicts or [],
            strict=True,
        )
    ]
    print(f"\nverdicts of int8 that are those of fp32: {np.mean(same):.1%} of {len(same)}")


def _cost(predictor: Predictor, gate: Gate, image: Images) -> None:
    features, grey = _features(predictor, image), np.zeros(1, np.float32)

    def median(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        return 1e3 * float(np.median(seconds))

    judged = median(lambda: gate.judge(image, grey, features))
    answered = median(lambda: predictor.answer(image))
    print(f"\none image: {judged:.2f} ms of {answered:.2f} ms, {judged / answered:.1%}")


if __name__ == "__main__":
    main()
