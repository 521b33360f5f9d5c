"""Names of files and patients stay on the machine that holds them."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import quick
import tiny
from PIL import Image

from cxr_assets import tracking, training
from cxr_assets.evaluation.report import write_report
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning.export import export
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs import dataset, raw
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.release.release import write_release
from cxr_assets.store import Store

FOLDER, TABLE, FILE, PATIENT = "Zarathustra", "Nostradamus", "Kassandra", "Methusalem"
PLANTED = tuple(name.lower().encode() for name in (FOLDER, TABLE, FILE, PATIENT))
SITE = "Alexandria"


def silent(line: str) -> None:
    pass


def hospital(root: Path) -> Path:
    """A table of images whose folder, name, files and patients are planted names."""
    rng = np.random.default_rng(0)
    rows = []
    place = root / FOLDER
    place.mkdir()
    labels = ("bacterial_pneumonia", "normal", "viral_pneumonia")
    for number in range(36):
        file = f"{FILE}-{number}.png"
        noise = rng.integers(0, 255, (40, 50), dtype=np.uint8)
        Image.fromarray(noise).save(place / file)
        split = ("train", "train", "val", "test")[number // 3 % 4]
        rows.append((file, labels[number % 3], f"{PATIENT}{number}", split, SITE))
    table = place / f"{TABLE}.csv"
    columns = ["path", "label", "patient", "split", "site"]
    pd.DataFrame(rows, columns=columns).to_csv(table, index=False)
    return table


def readable(content: bytes) -> Iterator[bytes]:
    """A file's bytes, and what is compressed or encoded in it."""
    yield content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    if content.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(content)) as image:
            yield repr(image.info).encode()
    if content.startswith(b"PAR1"):
        yield pd.read_parquet(io.BytesIO(content)).to_csv().encode()


def named(place: Path) -> dict[str, list[bytes]]:
    """The planted names in the name or content of each file below a folder."""
    found = {}
    for path in sorted(place.rglob("*")):
        texts = [str(path.relative_to(place)).encode()]
        texts += readable(path.read_bytes()) if path.is_file() else []
        if here := [name for name in PLANTED if any(name in text.lower() for text in texts)]:
            found[str(path.relative_to(place))] = here
    return found


@pytest.fixture(scope="module")
def settings_and_layout(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Layout]:
    """A run from the table to the release, as the graph makes it."""
    root = tmp_path_factory.mktemp("privacy")
    layout = Layout(root / "data")
    settings = compose(
        "scratch",
        [
            *(
                "data=table",
                "model=convnextv2_demo",
                f"data.table={hospital(root)}",
                f"data.image_size={tiny.SIZE}",
            ),
            *tiny.NETWORKS,
            *("trainer.max_epochs=1", "trainer.batch_size=8", "release.rule.margin=-1"),
            "release.rule.calibration_error=1",
        ],
    )
    images = raw.collect(settings.data, settings.classes, layout, silent)
    prepare(layout, images, settings.data, settings.classes, silent)
    tracking.open_store(None, layout, silent)
    bundles = []
    for asset in ("convnext_model", "dinov2_probe"):
        plan = make_plan(asset, settings, layout)
        training.fit(plan, silent)
        bundles.append(export(plan)[0])
    tracking.close("FINISHED")
    with pytest.MonkeyPatch.context() as patch:
        quick.draws(patch)
        write_report(layout, *bundles, rule=settings.release.rule)
    write_release(layout, None, settings)
    return settings, layout


def test_a_release_names_neither_place_nor_file_nor_patient(
    settings_and_layout: tuple[Experiment, Layout],
) -> None:
    _, layout = settings_and_layout
    [release] = [path for path in layout.releases.iterdir() if path.is_dir()]
    assert {"best.ckpt", "README.md", "metrics.json", "split.csv"} <= {
        path.name for path in release.iterdir()
    }
    assert named(release) == {}
    assert not any(SITE.encode() in path.read_bytes() for path in release.iterdir())
    assert "site 1" in (release / "metrics.json").read_text(), "sites are numbered"
    assert named(layout.root / "models") == {}


def test_what_stays_local_names_them(settings_and_layout: tuple[Experiment, Layout]) -> None:
    _, layout = settings_and_layout
    manifest = dataset.manifest(layout.processed)
    assert manifest["patient"].str.contains(PATIENT).all()
    found = named(layout.root)
    assert set(PLANTED) == set(found["raw/inventory.parquet"])
    assert set(found[str(latest_report(layout).relative_to(layout.root) / "predictions.csv")]) == {
        FILE.lower().encode(),
        PATIENT.lower().encode(),
    }


def test_mlflow_which_may_be_shared_names_none(
    settings_and_layout: tuple[Experiment, Layout],
) -> None:
    _, layout = settings_and_layout
    store = Store(None, layout)
    store.reach()
    runs = store.client.search_runs([store.experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert run.data.params["data.source"] == "table"
        assert run.data.params["data.table"] == "None"
    assert named(layout.mlflow_artifacts) == {}
    assert named(layout.mlflow_database.parent) == {}
