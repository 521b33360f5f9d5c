"""The job ``retrain`` where the data root is in a bucket, then on another machine."""

import os
from pathlib import Path

import dagster as dg
import pytest
import quick
import s3
import tiny
from machines import quiet

from cxr_assets import exchange, written
from cxr_assets.definitions import definitions
from cxr_assets.defs import resources
from cxr_serving.model import store
from cxr_serving.model.remote import Bucket

OVERRIDES = (
    *("data.synthetic_patients=8", "data.image_size=32", "trainer.max_epochs=1"),
    *tiny.NETWORKS,
    *tiny.LIMITS,
)


@pytest.mark.skipif("PUBLICATIONS" not in os.environ, reason="`make s3` runs it: many seconds")
@pytest.mark.usefixtures("storage")
def test_what_the_job_makes_is_found_by_another_machine(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick.reports(monkeypatch)
    settings = {"preset": "demo", "overrides": " ".join(OVERRIDES)}
    monkeypatch.setattr(resources.settings, "cache", tmp_path / "first")
    done = definitions.resolve_job_def("retrain").execute_in_process(
        instance=instance,
        run_config={
            "resources": {
                "data_root": {"config": {"path": s3.URL}},
                "experiment": {"config": settings},
            }
        },
    )
    assert done.success
    first = resources.settings.layout_of(s3.URL)
    assert first.root.is_relative_to(tmp_path)

    monkeypatch.setattr(resources.settings, "cache", tmp_path / "second")
    second = resources.settings.layout_of(s3.URL)
    exchange.pull(second, quiet)
    released = store.latest(second.releases)
    for asset in ("convnext_model", "dinov2_probe"):
        model = store.latest(second.models(asset))
        assert store.verify(model) == store.verify(first.models(asset) / model.name)
    assert released.name == store.latest(second.models("convnext_model")).name
    store.verify(released)
    assert written.fault(second.reports / released.name) is None
    page = (second.reports / "report.html").read_bytes()
    assert page == (second.reports / released.name / "report.html").read_bytes()
    assert len(list(second.decisions.iterdir())) == 1
    assert not Bucket(s3.URL).list("work/")
