import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fastapi.testclient import TestClient

from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings
from cxr_serving.model.network import Recorded
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.reference import Reference

PublishBundle = Callable[..., Path]


class Counted(Recorded):
    """Records as CUDA does, without CUDA: a replay computes what lies in the recording's input."""

    def __init__(self) -> None:
        super().__init__(lambda pixels: (torch.stack([pixels.sum(dim=(1, 2, 3))] * 3, dim=1),))
        self.captured: list[int] = []

    def _record(self, pixels: torch.Tensor) -> Any:
        self.captured.append(len(pixels))
        (output,) = self._network(pixels)

        def replay() -> None:
            output.copy_(self._network(pixels)[0])

        return SimpleNamespace(
            pixels=pixels, outputs=(output,), graph=SimpleNamespace(replay=replay)
        )


def test_a_batch_that_is_filled_up_is_answered_row_by_row() -> None:
    network = Counted()
    for number in (5, 8, 3):
        pixels = torch.rand(number, 3, 4, 4)
        (rows,) = network(pixels)
        assert torch.equal(rows, network._network(pixels)[0])
    assert network.captured == [8, 4]


@pytest.mark.parametrize("max_batch", [1, 2, 3, 8, 12, 100])
def test_every_size_of_batch_is_recorded_before_the_model_serves(
    tmp_path: Path,
    publish_bundle: PublishBundle,
    monkeypatch: pytest.MonkeyPatch,
    max_batch: int,
) -> None:
    """A recording takes seconds and the GPU for itself; requests are answered meanwhile."""
    network = Counted()

    def forward(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32]]:
        (logits,) = network(torch.zeros(len(images), 3, 1, 1))
        return (logits.numpy(),)

    def load(predictor: Predictor, int8: bool) -> Any:
        predictor.runtime = "torch"
        return forward

    monkeypatch.setattr(Predictor, "_load", load)
    same = Reference(np.zeros((1, 64, 64), np.uint8), np.full((1, 3), 1 / 3, np.float32))
    publish_bundle(tmp_path, seed=1, finish=same.write)
    with TestClient(create_app(Settings(data_root=tmp_path, max_batch=max_batch))) as client:
        deadline = time.monotonic() + 60
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < deadline, client.get("/ready").text
    before = list(network.captured)
    assert before
    for number in range(1, max_batch + 1):
        forward(np.zeros((number, 1, 1), np.uint8))
    assert network.captured == before
    assert len(set(before)) == len(before)
    assert max(before) < 2 * max_batch, "more than a request can bring"
