"""Requests to the service while something else happens to it."""

import threading
import time
from pathlib import Path
from typing import Self

import httpx

_PAUSE_SECONDS = 0.2


class Load:
    """One client that sends an image again and again, in a thread, until it is left.

    Args:
        image: a JPEG that the service accepts.
        timeout: seconds of a request.

    Attributes:
        answered: how often each version of the model has answered.
        failed: what was not answered with 200.
    """

    def __init__(self, image: Path, timeout: float) -> None:
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        self._body = image.read_bytes()
        self._timeout = timeout
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=self._timeout, trust_env=False) as client:
            while not self._stopping.wait(_PAUSE_SECONDS):
                files = {"file": ("image.jpeg", self._body, "image/jpeg")}
                try:
                    answer = client.post("http://serving:8000/predict", files=files)
                except httpx.HTTPError as error:
                    self.failed.append(f"{time.strftime('%X')} {error!r}")
                    continue
                if answer.status_code != httpx.codes.OK:
                    self.failed.append(f"{time.strftime('%X')} {answer.status_code} {answer.text}")
                    continue
                version = str(answer.json()["model"]["version"])
                self.answered[version] = self.answered.get(version, 0) + 1
