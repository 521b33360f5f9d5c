"""Images and a training on one Ray node; `make ray` has jobs, two nodes and faults."""

import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import killing
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image

pytest.importorskip("ray", reason="Ray is not installed: make .venv/ray")

import ray

from cxr_assets import liveness, presence
from cxr_assets.cluster import images, ranks
from cxr_assets.cluster.call import Job
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit
from cxr_assets.radiographs.conversion import write_here
from cxr_serving.model import hashes

WORKERS = 2
SHARED = ("compute=ray", "compute.address=http://127.0.0.1:8265", f"compute.workers={WORKERS}")
# Sums of float32 in another order, over a few steps.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[None]:
    # pytest's folders have names that are too long for Ray's sockets.
    with TemporaryDirectory(prefix="ray-") as folder, pytest.MonkeyPatch.context() as patch:
        # Otherwise Ray leaves one in the home directory, and clusters started later want it.
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            object_store_memory=100_000_000,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(Layout(tmp_path / "shared"), "job")
    lock = liveness.Lock(job.alive, {})
    job.folder.mkdir()
    with presence.renewed(job.alive):
        yield job
    lock.release()


def radiographs(folder: Path) -> pd.DataFrame:
    """More images than one task has, the last of which is cut off."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = []
    for number in range(40):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (48, 64), np.uint8)).save(path)
        if number == 39:
            path.write_bytes(path.read_bytes()[:200])
        rows.append({"source": str(path), "sha256": hashes.of_file(path)})
    return pd.DataFrame(rows)


def test_workers_write_the_images_that_this_process_writes(job: Job, tmp_path: Path) -> None:
    table = radiographs(tmp_path / "raw")
    made: dict[str, Any] = {}
    compute = compose("demo", SHARED).compute
    for name, write in (("here", write_here), ("there", partial(images.write, compute, job))):
        folder = tmp_path / name
        folder.mkdir()
        targets = [str(folder / Path(path).name) for path in table["source"]]
        written = write(table.assign(target=targets), tiny.SIZE, print)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert len(files) == 39
        made[name] = written, files
    assert made["there"] == made["here"]


def test_workers_train_what_this_process_trains(job: Job, tmp_path: Path) -> None:
    lines: dict[str, list[str]] = {"here": [], "there": []}
    plans = {}
    for name, overrides in (("here", ()), ("there", SHARED)):
        layout = Layout(tmp_path / name)
        tiny.processed(layout, images=6)
        plans[name] = killing.plan(
            layout, "trainer.max_epochs=2", "trainer.batch_size=8", *overrides
        )
    fit(plans["here"], lines["here"].append)
    engine = partial(ranks.run, plans["there"].experiment.compute, job)
    fit(plans["there"], lines["there"].append, engine=engine)
    assert plans["there"].fingerprint == plans["here"].fingerprint
    ours, theirs = (killing.left_behind(plans[name].work) for name in ("there", "here"))
    for part in ("best", "history"):
        torch.testing.assert_close(ours[part], theirs[part], **TOLERANCE)
    epochs = [sum(line.startswith("epoch") for line in each) for each in lines.values()]
    assert epochs == [2, 2]
