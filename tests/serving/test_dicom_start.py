"""Where the process that decodes DICOM starts, and what the service says where it does not."""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from dicoms import dicom
from fastapi.testclient import TestClient

from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = sysconfig.get_path("purelib")
IMAGE = dicom(np.arange(1200, dtype=np.uint16).reshape(30, 40))
READ = (
    "import sys\n"
    "from cxr_serving.images.dicom import DicomReader\n"
    "print(DicomReader(10**6, 20, 2**30).read(sys.stdin.buffer.read()).shape)\n"
)
BASE = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"


def by_path(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), PACKAGES])}


def by_user(folder: Path) -> dict[str, str]:
    """As after ``pip install --user``: packages below the home directory."""
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    for package in Path(PACKAGES).iterdir():
        if not package.name.startswith("__editable__"):
            (site / package.name).symlink_to(package)
    (site / "cxr_serving").symlink_to(ROOT / "cxr_serving")
    return {"PYTHONUSERBASE": str(folder)}


def read_by_another_python(environment: dict[str, str], folder: Path) -> tuple[bytes, bytes]:
    ended = subprocess.run(
        [BASE, "-c", READ],
        input=IMAGE,
        env=environment,
        cwd=folder,
        capture_output=True,
        check=False,
    )
    return ended.stdout, ended.stderr


@pytest.mark.skipif(not BASE.exists(), reason="no Python outside of the virtual environment")
@pytest.mark.parametrize("installed", [by_path, by_user])
def test_dicom_is_read_however_the_service_was_installed(
    installed: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    assert read_by_another_python({}, tmp_path)[0] == b""  # which has no packages of its own
    assert read_by_another_python(installed(tmp_path), tmp_path) == (b"(30, 40)\n", b"")


def test_the_child_imports_nothing_from_where_the_service_was_started(tmp_path: Path) -> None:
    trap = tmp_path / "imported"
    for name in ("gdcm", "struct", "pylibjpeg", "sitecustomize", "typing_extensions"):
        (tmp_path / f"{name}.py").write_text(f"open({str(trap)!r}, 'w').close()\n")
    script = f"import sys; sys.path.remove(''); sys.path.append({str(tmp_path)!r})\n{READ}"
    ended = subprocess.run(
        [sys.executable, "-c", script], input=IMAGE, cwd=tmp_path, capture_output=True, check=True
    )
    assert ended.stdout == b"(30, 40)\n"
    assert not trap.exists()


@pytest.fixture
def client(
    tmp_path: Path, publish_bundle: Callable[..., Path], request: pytest.FixtureRequest
) -> Iterator[TestClient]:
    """A service with a model, in this process."""
    publish_bundle(tmp_path, seed=1)
    with TestClient(create_app(Settings(data_root=tmp_path, poll_seconds=0.2))) as client:
        yield client


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The interpreter of children is a program that is none; ``undo`` mends it."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    return monkeypatch


@pytest.fixture
def no_gdcm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra ``dicom`` is not installed."""
    monkeypatch.setitem(sys.modules, "gdcm", None)


def dicom_problem(client: TestClient, expected: Callable[[str | None], bool]) -> str | None:
    """What ``/ready`` says of DICOM, once it is what is expected."""
    deadline = time.monotonic() + 60
    while True:
        answer = client.get("/ready")
        if answer.status_code == 200 and expected(answer.json()["dicom"]):
            said: str | None = answer.json()["dicom"]
            assert client.get("/model").json()["dicom"] == said
            return said
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


def send(client: TestClient, image: bytes) -> tuple[int, dict[str, str]]:
    answer = client.post("/predict", files={"file": image})
    return answer.status_code, answer.json().get("error", {})


def decoders() -> int:
    """Processes that decode DICOM, of this process."""
    lists = Path("/proc/self/task").glob("*/children")
    found = 0
    for child in [child for file in lists for child in file.read_text().split()]:
        with suppress(FileNotFoundError):  # it has ended meanwhile
            found += b"dicom.sandbox" in Path(f"/proc/{child}/cmdline").read_bytes()
    return found


def test_the_process_is_tried_at_start_and_kept_from_the_first_image(client: TestClient) -> None:
    assert dicom_problem(client, lambda said: said is None) is None
    deadline = time.monotonic() + 60
    while decoders():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(2):
        assert send(client, IMAGE) == (200, {})
        assert decoders() == 1


def test_a_process_that_does_not_start_is_no_fault_of_the_image(
    no_child: pytest.MonkeyPatch,
    client: TestClient,
    image: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = dicom_problem(client, lambda said: "does not start" in str(said))
    # The service starts while pytest sets the test up, or a moment later.
    logged = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert any("ended without a message" in record.getMessage() for record in logged)
    status, error = send(client, IMAGE)
    assert (status, error["code"]) == (503, "dicom_unavailable")
    assert str(said) in error["message"]
    # Other images are answered, beside it, too.
    assert send(client, image) == (200, {})
    batch = client.post("/predict/batch", files=[("file", IMAGE), ("file", image)]).json()
    first, second = batch["results"]
    assert first["error"]["code"] == "dicom_unavailable"
    assert second["error"] is None
    no_child.undo()
    assert send(client, IMAGE) == (200, {})
    assert dicom_problem(client, lambda said: said is None) is None


def test_the_log_says_why_a_process_does_not_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cxr_serving.images.dicom import DicomReader, DicomUnavailable, child

    monkeypatch.setattr(child, "_PACKAGES", ("cxr_serving",))
    with pytest.raises(DicomUnavailable, match="the log says why"):
        DicomReader(10**6, 20, 2**30).try_out()
    assert "ModuleNotFoundError: No module named 'numpy'" in caplog.text


@pytest.mark.usefixtures("no_gdcm")
def test_a_service_without_the_extra_names_it(client: TestClient, image: bytes) -> None:
    said = dicom_problem(client, lambda said: said is not None)
    assert "pip install 'cxr-retraining[dicom]'" in str(said)
    assert send(client, IMAGE) == (415, {"code": "unsupported_image", "message": said})
    assert send(client, image) == (200, {})
