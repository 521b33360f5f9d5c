import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
import s3

from cxr_assets import lease
from cxr_assets.layout import Layout
from cxr_serving.model import remote
from cxr_serving.model.remote import Bucket

# Files that take longest, longest first.
LONGEST = (
    "defs/test_jobs.py",
    "defs/test_ui.py",
    "test_soak.py",
    "test_quarter.py",
    "cluster/test_node.py",
    "test_exchange_faults.py",
    "learning/test_resume.py",
    "faults/test_kills.py",
    "faults/test_disk.py",
    "faults/test_two.py",
    "learning/test_distributed.py",
    "test_memory.py",
    "test_training.py",
    "learning/test_sweep.py",
    "defs/test_serving_follows.py",
    "deployment/stack/test_main.py",
    "test_same_pixels.py",
    "evaluation/test_report.py",
    "serving/test_bucket.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tries", type=int, default=1, help="how often a process is killed at random")


@pytest.fixture
def tries(request: pytest.FixtureRequest) -> int:
    """How often a process is killed at a random moment: once, but for `make faults`."""
    number: int = request.config.getoption("tries")
    return number


def pytest_configure(config: pytest.Config) -> None:
    # Otherwise pytest-xdist hands out the files with the most tests first: one long test is last.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that at the end no worker waits for one of them."""
    longest = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: longest.get(item.path, len(longest)))


def pytest_collection_finish() -> None:
    """Before a training of several processes has the server that they are forked from import less
    than the tests need."""
    if "forking" in sys.modules:
        forkserver.ensure_running()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny networks gain nothing from a second thread, and a busy machine loses by it."""
    # Here, because the process that hands the tests to the workers needs none of it.
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def terminable() -> Iterator[None]:
    """SIGTERM ends a test as it ends a process: a run of Dagster leaves it handled as SIGINT is."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def _storage() -> Iterator[s3.Storage]:
    with s3.running() as storage:
        yield storage


@pytest.fixture
def storage(_storage: s3.Storage, monkeypatch: pytest.MonkeyPatch) -> s3.Storage:
    """An empty bucket on a server of S3, which clients reach through a network that works."""
    _storage.mend()
    for name, value in _storage.network.environment.items():
        monkeypatch.setenv(name, value)
    return _storage


@pytest.fixture
def bucket(storage: s3.Storage) -> Bucket:
    """The client of that bucket."""
    return Bucket(s3.URL)


@pytest.fixture
def machine(tmp_path: Path, storage: s3.Storage) -> Callable[[str], Layout]:
    """The layout of a machine that has its data root in that bucket, by name."""
    return lambda name: Layout(tmp_path / name, s3.URL)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients try once."""
    monkeypatch.setattr(remote, "_ATTEMPTS", 1)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases expire after seconds."""
    monkeypatch.setattr(lease, "SECONDS", 3.0)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are not renewed by themselves while a test counts bytes."""
    monkeypatch.setattr(lease, "SECONDS", 1000.0)
