"""What ``pip install ".[serving,dicom]"`` brings is enough for the service on a CPU."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import dicoms
import httpx
import pytest
from net import free_port
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("serving", "dicom")
# -S: the environment of the tests, which has torch, is not looked at.
COMMAND = (sys.executable, "-S", "-c", "from cxr import main; main()")


def installed(requirements: list[str]) -> set[str]:
    """Names of the packages that pip would install, by the metadata of those installed here."""
    names: set[str] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                found = distribution(name).requires or []
            except PackageNotFoundError:
                pytest.fail(f"{name} is required, but is not installed here: run make setup")
            names.add(name)
            waiting += [(Requirement(line), wanted) for line in found]
    return names


@pytest.fixture(scope="module")
def packages() -> set[str]:
    extras = PROJECT["optional-dependencies"]
    return installed(
        [*PROJECT["dependencies"], *(line for name in EXTRAS for line in extras[name])]
    )


@pytest.fixture(scope="module")
def site(packages: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from that holds these packages, the service, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    for package in ("cxr", "cxr_serving"):
        (folder / package).symlink_to(ROOT / package)
    for name in packages:
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    return folder


def test_neither_torch_nor_transformers_nor_their_dependencies_are_installed(
    packages: set[str],
) -> None:
    assert {"numpy", "onnxruntime", "fastapi", "pydicom"} <= packages
    unwanted = {"torch", "transformers", "tokenizers", "huggingface-hub", "triton", "sympy"}
    assert packages & unwanted == set()


def environment(site: Path, **settings: object) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CXR_")},
        "PYTHONPATH": str(site),
        **{f"CXR_{name.upper()}": str(value) for name, value in settings.items()},
    }


@pytest.fixture(scope="module")
def client(
    site: Path, publish_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("installed")
    publish_bundle(folder, seed=1)
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve"],
            env=environment(site, data_root=folder, port=port, threads=1, poll_seconds=0.1),
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    transport = httpx.HTTPTransport(retries=10)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=60, transport=transport, trust_env=False
    ) as client:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if client.get("/ready").status_code == 200:
                    break
            except httpx.TransportError:
                continue
        yield client
    process.terminate()
    assert process.wait(30) == 0, (folder / "log").read_text()


def test_the_service_checks_predicts_and_explains_without_torch(
    client: httpx.Client, image: bytes
) -> None:
    files = {"file": ("image.jpeg", image)}
    assert client.post("/predict", files=files).json()["label"]
    explained = client.post("/explain", params={"format": "png"}, files=files)
    assert explained.headers["Content-Type"] == "image/png"


def test_the_service_reads_dicom_without_torch(client: httpx.Client) -> None:
    answer = client.post("/predict", files={"file": ("image.dcm", dicoms.cr())})
    assert (answer.status_code, answer.json()["label"] != "") == (200, True)


def test_images_are_classified_on_the_command_line_without_torch(
    site: Path, publish_bundle: Callable[..., Path], tmp_path: Path, image: bytes
) -> None:
    publish_bundle(tmp_path / "data", seed=1)
    (tmp_path / "image.jpeg").write_bytes(image)
    done = subprocess.run(
        [*COMMAND, "predict", "image.jpeg"],
        env=environment(site),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "image.jpeg" in done.stdout


def test_a_device_that_needs_torch_is_reported_with_the_extra(
    site: Path, publish_bundle: Callable[..., Path], tmp_path: Path, image: bytes
) -> None:
    publish_bundle(tmp_path / "data", seed=1)
    (tmp_path / "image.jpeg").write_bytes(image)
    done = subprocess.run(
        [*COMMAND, "predict", "image.jpeg"],
        env=environment(site, device="cuda"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install 'cxr-retraining[cuda]'" in done.stderr
