"""BentoML with ONNX Runtime: ``bentoml serve benchmarks.serving.bento:Model``, MODEL its file."""

import os
from pathlib import Path

import bentoml

from benchmarks.serving.peer import Network, decode


@bentoml.service(logging={"access": {"enabled": False}})
class Model:
    """Answers with the probabilities."""

    def __init__(self) -> None:
        self._network = Network(os.environ["MODEL"])

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, file: Path) -> dict[str, list[float]]:
        """Of an upload."""
        with file.open("rb") as image:
            return {"probs": self._network(decode(image))[0].tolist()}
