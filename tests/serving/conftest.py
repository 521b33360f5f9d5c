"""Tiny real bundles, images of every kind, and a live server to send them to."""

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import gates
import numpy as np
import pytest
import servers
import torch
from PIL import Image
from servers import Server
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

from cxr_assets.learning import onnx
from cxr_serving.model import bundle, store
from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.distribution import Distribution
from cxr_serving.model.preprocessing import Preprocessing
from cxr_serving.model.reference import Reference

CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
SIZE = 64

PublishBundle = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def _network(seed: int, classes: Sequence[str]) -> ConvNextV2ForImageClassification:
    torch.manual_seed(seed)
    return ConvNextV2ForImageClassification(
        ConvNextV2Config(
            image_size=SIZE,
            hidden_sizes=[4, 4, 8, 8],
            depths=[1, 1, 1, 1],
            id2label=dict(enumerate(classes)),
            label2id={name: index for index, name in enumerate(classes)},
        )
    )


@pytest.fixture(scope="session")
def publish_bundle(tmp_path_factory: pytest.TempPathFactory) -> PublishBundle:
    """``publish_bundle(data_root, seed, finish, **record)`` publishes random weights."""

    @cache
    def files(seed: int, classes: tuple[str, ...]) -> Path:
        directory = tmp_path_factory.mktemp(f"network-{seed}")
        _network(seed, classes).save_pretrained(directory)
        Preprocessing(SIZE).write(directory)
        onnx.write(directory, flip_averaging=False)
        images = np.stack([np.roll(pixels(SIZE, SIZE), shift) for shift in (0, 7, 19)])
        probabilities = onnx.predict(directory / bundle.ONNX_FILE, images)
        Reference(images, probabilities).write(directory)
        Distribution.of(images, probabilities).write(directory)
        gates.knowing(SIZE).write(directory)
        return directory

    def publish(
        data_root: Path,
        seed: int,
        finish: Callable[[Path], object] = lambda directory: None,
        asset: str = "convnext_model",
        classes: tuple[str, ...] = CLASSES,
        **changes: object,
    ) -> Path:
        fingerprint = f"{seed:08x}".ljust(64, "0")
        now = datetime.now(UTC)
        record = BundleRecord.model_validate(
            {
                "asset": asset,
                "version": bundle.new_version(fingerprint, now),
                "fingerprint": fingerprint,
                "classes": classes,
                "input_size": SIZE,
                "created_at": now,
                "data_version": "test",
                "code_version": "test",
                "seed": seed,
                "pretrained": None,
                "synthetic": True,
                "validation": {"macro_f1": 0.5, "loss": 1.1},
                "gate": gates.RECORD,
                **changes,
            }
        )

        def write_files(directory: Path) -> None:
            shutil.copytree(files(seed, classes), directory, dirs_exist_ok=True)
            finish(directory)

        return store.publish(store.asset_directory(data_root, asset), record, write_files)

    return publish


@pytest.fixture(scope="session")
def image() -> bytes:
    """A JPEG of 150 x 120 pixels: a synthetic radiograph, which the gate of all bundles accepts."""
    return encode(gates.radiograph(), "JPEG", quality=95)


@pytest.fixture(scope="session")
def rotated(image: bytes) -> bytes:
    """The same image turned clockwise by 90 degrees, which the gate notices: a PNG."""
    with Image.open(io.BytesIO(image)) as upright:
        return encode(upright.transpose(Image.Transpose.ROTATE_270), "PNG")


@pytest.fixture(scope="session")
def coloured(image: bytes) -> bytes:
    """The same image in colour, which the gate notices and nothing repairs: a PNG."""
    with Image.open(io.BytesIO(image)) as grey:
        return encode(Image.merge("RGB", (grey, grey, grey.point(lambda v: v // 2))), "PNG")


@pytest.fixture(scope="session")
def make_pixels() -> Callable[[int, int], np.ndarray]:
    """``make_pixels(height, width)``: uint8, smooth waves with noise."""
    return pixels


@pytest.fixture(scope="session")
def encode_image() -> Callable[..., bytes]:
    """``encode_image(image, format, **options)``: the bytes of the file."""
    return encode


def pixels(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 80 * np.sin(6 * np.pi * x / width) * np.cos(4 * np.pi * y / height)
    noise = np.random.default_rng(0).normal(0, 8, waves.shape)
    return (waves + noise).clip(0, 255).astype(np.uint8)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """``serve(folder, **settings)`` starts a server on ``folder / "data"`` that answers /health."""
    with servers.running() as start:
        yield start


@pytest.fixture(scope="session")
def ready_server(
    publish_bundle: PublishBundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server with a model; tests leave its model alone. It takes bodies of 300,000 bytes."""
    folder = tmp_path_factory.mktemp("ready")
    version = publish_bundle(folder / "data", seed=1).name
    with servers.running() as serve:
        server = serve(folder, max_upload_bytes=300_000)
        server.wait_for_version(version)
        yield server


KEY = "0123456789abcdef"


def _with_keys(
    serve: Callable[..., Server], publish_bundle: PublishBundle, folder: Path, **settings: object
) -> Server:
    keys = folder / "keys"
    keys.write_text(f"all {KEY}\n")
    server = serve(folder, keys_file=keys, admin_keys_file=keys, **settings)
    server.headers["Authorization"] = f"Bearer {KEY}"
    server.wait_for_version(publish_bundle(server.data_root, seed=1).name)
    return server


@pytest.fixture(scope="session")
def guarded(
    publish_bundle: PublishBundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server that requires a key, which is in its ``headers``; all else is as by default."""
    with servers.running() as serve:
        yield _with_keys(serve, publish_bundle, tmp_path_factory.mktemp("guarded"))


@pytest.fixture(scope="session")
def hasty(
    publish_bundle: PublishBundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """As ``guarded``, but a request has 2 s, and its body 200,000 bytes."""
    limits = {"deadline_seconds": 2, "max_upload_bytes": 200_000}
    with servers.running() as serve:
        yield _with_keys(serve, publish_bundle, tmp_path_factory.mktemp("hasty"), **limits)
