"""LitServe with torch: ``python -m ... PORT BUNDLE``."""

import os
import sys

import litserve
import torch
from fastapi import Request
from transformers import AutoModelForImageClassification

from benchmarks.serving.peer import Array, decode


class Api(litserve.LitAPI):
    """Answers with the probabilities."""

    def setup(self, device: str) -> None:
        """Load the network, in the worker."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._network = AutoModelForImageClassification.from_pretrained(sys.argv[2]).eval()

    def decode_request(self, request: Request) -> Array:
        """Of the form, which LitServe passes on."""
        return decode(request["file"].file)

    @torch.inference_mode()
    def predict(self, pixels: Array) -> torch.Tensor:
        """Of one image."""
        probabilities: torch.Tensor = self._network(torch.from_numpy(pixels[None])).logits.softmax(
            1
        )
        return probabilities

    def encode_response(self, output: torch.Tensor) -> dict[str, list[float]]:
        """JSON for one image."""
        return {"probs": output[0].tolist()}


if __name__ == "__main__":
    litserve.LitServer(Api(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
