"""The service and the pipeline's job in containers that are not as usual.

The service is tried with many at once; `make facts` tries it with each, and the job with all.
"""

import os
import shutil
import time
from pathlib import Path

import dicoms
import facts
import httpx
import numpy as np
import pytest
from composition import ROOT
from facts import Fact, container
from gates import radiograph
from net import free_port
from tiny import LIMITS, NETWORKS, convnext, publish

from cxr_assets.layout import Layout
from deploy.stack.container import INIT

WORKING = tuple(map(facts.together, facts.WORKING))
EACH = os.environ.get("FACTS") == "each"
TRIED = facts.FACTS if EACH else (WORKING[0], facts.CLOSED_VOLUME)
JOB = {
    "DAGSTER_HOME": "/data/dagster",
    "CXR_EXPERIMENT": "demo",
    "CXR_OVERRIDES": " ".join(
        ("data.synthetic_patients=40 data.image_size=64 trainer.max_epochs=1", *NETWORKS, *LIMITS)
    ),
}
MISSING = [name for name in ("unshare", "setpriv", str(INIT)) if shutil.which(name) is None]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces and mount"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (util-linux, tini)"),
    pytest.mark.timeout(1800),
]


def skip_if_the_clock_cannot_be_set(fact: Fact) -> None:
    if "FAKETIME" in fact.environment and not facts.FAKETIME.exists():
        pytest.skip("faketime is not installed")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data volume, in folders that others may enter."""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    volume = tmp_path / "volumes" / "data"
    home = volume / "dagster"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    for folder in (volume, home):
        os.chown(folder, 1000, 1000)
    return volume


@pytest.mark.parametrize("fact", TRIED, ids=lambda fact: fact.name)
def test_the_service_answers_or_says_what_to_do(fact: Fact, tmp_path: Path, data: Path) -> None:
    skip_if_the_clock_cannot_be_set(fact)
    publish(Layout(data), "convnext_model", convnext(), "1" * 64, with_onnx=True)
    port = free_port()
    environment = {"CXR_DATA_ROOT": "/data", "CXR_HOST": "127.0.0.1", "CXR_PORT": str(port)}
    with (
        container("serving", fact, tmp_path, ("cxr", "serve"), environment) as made,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        ready = first_word(client, made.log)
        if fact.unready:
            assert ready.status_code == 503
            assert fact.unready in ready.text
        else:
            assert ready.status_code == 200, made.log.read_text()
            picture = tmp_path / "radiograph.png"
            radiograph().save(picture)
            ramp = np.arange(60000, dtype=np.uint16).reshape(200, 300)
            for image in (picture.read_bytes(), dicoms.dicom(ramp)):
                answer = client.post("/predict", files={"file": image})
                assert answer.status_code == 200, answer.text
        if fact.processors:
            count = "from cxr_serving.model import processors; print(processors.count())"
            assert made.run(["python", "-c", count], 60) == (0, f"{fact.processors}\n")
        assert made.stop(), "it had to be killed"


def first_word(client: httpx.Client, log: Path) -> httpx.Response:
    """What it says of being ready, once it has looked for a model."""
    deadline = time.monotonic() + 120
    while True:
        try:
            answer = client.get("/ready")
        except httpx.TransportError:
            answer = None
        if answer is not None and "the first model is being loaded" not in answer.text:
            return answer
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.mark.skipif(not EACH, reason="minutes for each: make facts")
@pytest.mark.parametrize("fact", [*WORKING, *facts.FAILING], ids=lambda fact: fact.name)
@pytest.mark.usefixtures("data")
def test_the_job_succeeds_or_says_what_to_do(fact: Fact, tmp_path: Path) -> None:
    skip_if_the_clock_cannot_be_set(fact)
    command = ("dagster", "job", "execute", "-m", "cxr_assets.definitions", "-j", "retrain")
    with container("code-location", fact, tmp_path, command, JOB) as made:
        status = made.wait()
    said = made.log.read_text()
    if fact.failure:
        assert status != 0
        assert fact.failure in said
    else:
        assert status == 0, said
        assert "hf_release - release" in said
    if fact.notice:
        assert said.count(fact.notice) == 1
