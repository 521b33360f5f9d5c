"""What ``pip install ".[serving,dicom]"`` brings is enough for the service on a CPU."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def required(extras: tuple[str, ...]) -> set[str]:
    """Names of the packages that come with these extras."""
    optional = PROJECT["optional-dependencies"]
    return installed(
        [*PROJECT["dependencies"], *(line for name in extras for line in optional[name])]
    )


@pytest.fixture(scope="module")
def packages() -> set[str]:
    return required(EXTRAS)


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
    unwanted |= {"fsspec", "universal-pathlib"}
    assert packages & unwanted == set()


@pytest.mark.parametrize("extras", [(), EXTRAS, ("pipeline",)], ids=["none", "service", "pipeline"])
def test_what_one_machine_needs_is_free_of_what_many_need(extras: tuple[str, ...]) -> None:
    several = {"boto3", "botocore", "s3fs", "redis", "ray", "dagster-ray", "kubernetes"}
    assert not required(extras) & (several | {"dagster-k8s"})


def environment(site: Path, **settings: object) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CXR_")},
        "PYTHONPATH": str(site),
        **{f"CXR_{name.upper()}": str(value) for name, value in settings.items()},
    }


Cxr = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def cxr(site: Path) -> Iterator[Cxr]:
    """``cxr(folder, *arguments, **settings)`` starts a command there, which writes ``log``."""
    processes: list[subprocess.Popen[str]] = []

    def start(folder: Path, *arguments: str, **settings: object) -> subprocess.Popen[str]:
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                env=environment(site, data_root=folder / "data", **settings),
                cwd=folder,
                stdout=log,
                stderr=log,
                text=True,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)


@contextmanager
def serving(
    cxr: Cxr, folder: Path, met: Callable[[httpx.Response], bool]
) -> Iterator[tuple[httpx.Client, httpx.Response]]:
    """A service whose ``/ready`` has met a condition, and that answer; it must end with 0."""
    port = free_port()
    process = cxr(folder, "serve", port=port, threads=1, poll_seconds=0.1)
    transport = httpx.HTTPTransport(retries=10)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=60, transport=transport, trust_env=False
    ) as client:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if met(answer := client.get("/ready")):
                    break
            except httpx.TransportError:
                continue
        yield client, answer
    process.terminate()
    assert process.wait(30) == 0, (folder / "log").read_text()


@pytest.fixture(scope="module")
def client(
    cxr: Cxr, publish_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("installed")
    publish_bundle(folder / "data", seed=1)
    with serving(cxr, folder, lambda ready: ready.status_code == 200) as (client, _):
        yield client


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
    cxr: Cxr, publish_bundle: Callable[..., Path], tmp_path: Path, image: bytes
) -> None:
    publish_bundle(tmp_path / "data", seed=1)
    (tmp_path / "image.jpeg").write_bytes(image)
    status = cxr(tmp_path, "predict", "image.jpeg").wait(60)
    log = (tmp_path / "log").read_text()
    assert status == 0, log
    assert "image.jpeg" in log


EXTRA = (
    "needs torch and transformers: install the extra `cuda` with pip install 'cxr-retraining[cuda]'"
)


@pytest.mark.parametrize("command", [("serve",), ("predict", "image.jpeg")])
def test_a_device_that_needs_torch_ends_the_command_and_names_the_extra(
    cxr: Cxr, command: tuple[str, ...], publish_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    publish_bundle(tmp_path / "data", seed=1)
    (tmp_path / "image.jpeg").touch()
    status = cxr(tmp_path, *command, device="cuda", port=free_port()).wait(60)
    log = (tmp_path / "log").read_text()
    assert status == 1, log
    assert log.splitlines()[-1] == f"CXR_DEVICE: cuda {EXTRA}"


def test_a_model_that_needs_torch_does_not_serve_and_the_extra_is_named(
    cxr: Cxr, publish_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    publish_bundle(tmp_path / "data", 1, finish=lambda made: (made / "model.onnx").unlink())
    with serving(cxr, tmp_path, lambda ready: "starting" not in ready.text) as (_, ready):
        assert ready.status_code == 503
        assert EXTRA in ready.json()["error"]["message"]
        logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert any(EXTRA in line["message"] and line["level"] == "WARNING" for line in logged)
