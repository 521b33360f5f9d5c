"""Machines that share nothing but the bucket: what they leave there, and processes that do so."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bundles
import s3

from cxr_assets import lease, written
from cxr_assets.evaluation.reports import REPORT
from cxr_assets.exchange import exchanged
from cxr_assets.layout import Layout
from cxr_serving.model import store
from cxr_serving.model.remote import Bucket

ASSET = "convnext_model"
LOCK = "locks/x.json"


def publish(layout: Layout, number: int, point: bool = True) -> str:
    """A small bundle, another one for each number; returns its version."""
    record = bundles.record(number, fingerprint=f"{number:08x}" + "0" * 56)
    record = record.model_copy(
        update={"version": record.version[:-8] + f"{number:08x}"},
    )
    return store.publish(layout.models(ASSET), record, bundles.write_files, point).name


def quiet(line: str) -> None: ...


def report(layout: Layout, version: str, text: str) -> None:
    """A small report on a version."""
    directory = layout.reports / version
    shutil.rmtree(directory, ignore_errors=True)
    written.begin(directory, REPORT)
    (directory / "report.html").write_text(text)
    written.seal(directory, REPORT)
    (layout.reports / "report.html").write_text(text)
    store.write_pointer(layout.reports, version)


def pointed(storage: s3.Storage) -> str | None:
    """The version that the bucket's pointer names; what it names is always there."""
    key = f"cxr/models/{ASSET}/latest.json"
    if not storage.has(key):
        return None
    version = storage.content(key).decode().split('"')[3]
    assert storage.has(f"cxr/models/{ASSET}/{version}.tar")
    return version


@contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """One that is ready for a first line, with the network of this environment; killed at the end.

    Args:
        arguments: ``hold`` and for how many seconds a lease lasts without renewal; or ``publish``,
            the folder of its local copy and the numbers of versions.
    """
    with subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as machine:
        try:
            assert machine.stdout is not None
            assert machine.stdout.readline() == "ready\n"
            yield machine
        finally:
            machine.kill()


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def _hold(seconds: str) -> None:
    lease.SECONDS = float(seconds)
    with lease.held(Bucket(s3.URL), LOCK, "", quiet) as ours:
        _ready()
        ours.require()


def _publish(folder: str, *numbers: str) -> None:
    layout = Layout(Path(folder), s3.URL)
    _ready()
    for number in map(int, numbers):
        with exchanged(layout, quiet):
            publish(layout, number)


if __name__ == "__main__":
    {"hold": _hold, "publish": _publish}[sys.argv[1]](*sys.argv[2:])
