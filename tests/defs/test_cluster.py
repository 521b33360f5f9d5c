"""Steps on a cluster that cannot be used; tests/cluster has one that can."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from net import answering

from cxr_assets.cluster import call
from cxr_assets.defs import cluster
from cxr_assets.experiment import ExperimentError, compose
from cxr_assets.layout import Layout

NOWHERE = "http://127.0.0.1:9"


def run(layout: Layout, address: str = NOWHERE) -> None:
    experiment = compose("demo", ["compute=ray", f"compute.address={address}"])
    cluster.run(dg.build_op_context(), experiment, layout, None, "prepare")  # type: ignore[arg-type]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "find_spec", lambda name: name)
    monkeypatch.setattr(cluster, "version", lambda name: "2.60.0")


@pytest.fixture
def other_version() -> Iterator[str]:
    with answering(200, b'{"ray_version": "2.9.0"}') as address:
        yield address


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "find_spec", lambda name: None)
    with pytest.raises(call.ClusterError, match=r"pip install 'cxr-retraining\[ray\]'"):
        run(Layout(tmp_path))


@pytest.mark.usefixtures("installed")
def test_a_cluster_that_does_not_answer_or_differs_is_named(
    tmp_path: Path, other_version: str
) -> None:
    with pytest.raises(call.ClusterError, match=rf"compute\.address={NOWHERE} .* within 10 s"):
        run(Layout(tmp_path))
    with pytest.raises(call.ClusterError, match=r"has Ray 2\.9\.0, this machine 2\.60\.0"):
        run(Layout(tmp_path), other_version)
    with pytest.raises(call.ClusterError, match=r"not s3://bucket: set CXR_DATA_ROOT"):
        run(Layout(tmp_path, "s3://bucket"))
    assert not Layout(tmp_path).jobs.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compute=ray"], r"compute\.address"),
        (["compute.engine=ray"], r"needs compute\.address"),
        (["compute=ray", "compute.address=head:8265"], r"compute\.address"),
        (["compute=ray", f"compute.address={NOWHERE}", "trainer.devices=2"], r"compute\.workers=2"),
        (["compute=ray", f"compute.address={NOWHERE}", "compute.workers=17"], "more than the tr"),
    ],
)
def test_settings_that_cannot_work_are_rejected(overrides: list[str], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        compose("demo", overrides)
