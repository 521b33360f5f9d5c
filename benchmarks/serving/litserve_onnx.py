"""LitServe with ONNX Runtime: ``python -m ... PORT MODEL --batch 8 --workers 2``."""

import argparse

import litserve
from fastapi import Request

from benchmarks.serving.peer import Array, Network, decode


class Api(litserve.LitAPI):
    """Answers with the probabilities."""

    def __init__(self, model: str, batch: int, workers: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=0.01 if batch > 1 else 0.0)
        self._model = model
        self._workers = workers

    def setup(self, device: str) -> None:
        """Load the network, in the worker."""
        self._network = Network(self._model, self._workers)

    def decode_request(self, request: Request) -> Array:
        """Of the form, which LitServe passes on."""
        return decode(request["file"].file)

    def predict(self, pixels: Array) -> Array:
        """Of one image or a batch."""
        return self._network(pixels)

    def encode_response(self, output: Array) -> dict[str, list[float]]:
        """JSON for one image."""
        return {"probs": output.ravel().tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    litserve.LitServer(
        Api(given.model, given.batch, given.workers),
        accelerator="cpu",
        workers_per_device=given.workers,
    ).run(host="127.0.0.1", port=given.port, generate_client_file=False, log_level="warning")
