"""A table trains to what a folder trains to, whatever its files are called and written as."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import quick
from learning.trainings import ASSETS, OVERRIDES

from benchmarks import archive
from cxr_assets.evaluation.report import write_report
from cxr_assets.evaluation.reports import PREDICTIONS_FILE
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan
from cxr_assets.radiographs import dataset, synthesis
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.radiographs.raw import collect

REAL = Path(__file__).parents[2] / "shared/radiographs/chest_xray"
# At this size JPEGs of up to 383 pixels are decoded whole: larger ones are decoded at half their
# size, which is not quite what a DICOM file with the same pixels is resized to.
SETTINGS = (*OVERRIDES, "trainer.max_epochs=2", "trainer.mixup=0.2", "data.image_size=96")
# The weights and all that answers with them; the others say which images these are, and when.
SAME = (
    "model.safetensors",
    "model.onnx",
    "best.ckpt",
    "distribution.json",
    "reference.safetensors",
)


@dataclass(frozen=True)
class Trained:
    layout: Layout
    bundles: list[Path]
    predictions: pd.DataFrame


def train(root: Path, *overrides: str) -> Trained:
    layout = Layout(root)
    experiment = compose("demo", [*SETTINGS, *overrides])
    images = collect(experiment.data, experiment.classes, layout, print)
    prepare(layout, images, experiment.data, experiment.classes, print)
    bundles = []
    for asset in ASSETS:
        training = plan(asset, experiment, layout)
        fit(training, lambda line: None)
        bundles.append(export(training)[0])
    with pytest.MonkeyPatch.context() as patch:
        quick.reports(patch)
        report = write_report(layout, *bundles)
    return Trained(layout, bundles, pd.read_csv(report / PREDICTIONS_FILE))


def folder(kind: str, root: Path) -> Path:
    """About sixty images in Kaggle's layout."""
    if kind == "synthetic":
        synthesis.make(root, 12, seed=0)
        return root
    if not REAL.is_dir():
        pytest.skip(f"there are no radiographs in {REAL}")
    for name in ("train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"):
        (root / name).mkdir(parents=True)
        found = sorted((REAL / name).iterdir())
        for path in found[:: len(found) // 18]:
            (root / name / path.name).symlink_to(path)
    return root


def table(images: Path, layout: Layout, root: Path) -> Path:
    """The images of a dataset with other names, formats and patients, and in another order."""
    root.mkdir()
    rows = dataset.manifest(layout.processed).query("kept").sample(frac=1, random_state=0)
    rows["number"] = rows["patient"].factorize()[0]
    lines = ["path,label,patient,split,site"]
    for place, row in enumerate(rows.itertuples()):
        levels = archive.grey(images / row.path)
        file = archive.save(levels, root / f"{place:04}", archive.KINDS[place % 3])
        site = archive.SITES[row.number % 3]
        lines.append(f"{file.name},{rows.at[row.Index, 'class']},P{row.number},{row.split},{site}")
    path = root / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_names_and_formats_do_not_matter(kind: str, tmp_path: Path) -> None:
    images = folder(kind, tmp_path / "images")
    first = train(tmp_path / "first", "data=folder", f"data.folder='{images}'")
    labels = table(images, first.layout, tmp_path / "table")
    second = train(tmp_path / "second", "data=table", f"data.table='{labels}'")

    for split in ("train", "val", "test"):
        before, after = (dataset.kept(one.layout.processed, split) for one in (first, second))
        assert before[["pixels", "class"]].equals(after[["pixels", "class"]])
        assert not set(before["sha256"]) & set(after["sha256"])
    for before, after in zip(first.bundles, second.bundles, strict=True):
        for name in SAME:
            if (before / name).exists():
                assert (before / name).read_bytes() == (after / name).read_bytes(), name
    columns = [name for name in first.predictions if name.startswith(("model_", "baseline_"))]
    assert len(columns) == 6
    assert first.predictions[columns].equals(second.predictions[columns])
