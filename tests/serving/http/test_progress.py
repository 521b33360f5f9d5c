"""A real service that is paused for longer than the deadline of a request, and resumed."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest
from dicoms import dicom

DEADLINE = 2.0


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@contextmanager
def asking(server: Any, file: bytes, clients: int) -> Iterator[list[int]]:
    """Clients that keep sending an image; the statuses of their answers, as they arrive."""
    statuses: list[int] = []
    done = Event()

    def ask() -> None:
        while not done.is_set():
            statuses.append(server.predict(file, headers=server.headers).status_code)

    with ThreadPoolExecutor(clients) as pool:
        requests = [pool.submit(ask) for _ in range(clients)]
        try:
            yield statuses
        finally:
            done.set()
    for client in requests:
        client.result()


def ready(server: Any) -> httpx.Response:
    answer: httpx.Response = server.client.get("/ready")
    return answer


def test_service_that_was_paused_answers_at_once(hasty: Any, image: bytes) -> None:
    for _ in range(2):
        with asking(hasty, image, clients=4) as statuses:
            hasty.wait(lambda seen=statuses: 200 in seen, 10)
            with stopped(hasty.process.pid):
                Event().wait(1.5 * DEADLINE)
            answer = hasty.predict(image, headers=hasty.headers, timeout=DEADLINE)
            assert answer.status_code == 200, answer.text
        assert ready(hasty).status_code == 200


def child(process: int) -> int:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    [found] = [int(pid) for path in tasks for pid in path.read_text().split()]
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child process in /proc")
def test_ready_is_503_while_no_image_is_answered_and_200_after_the_next_answer(
    hasty: Any,
) -> None:
    grey = np.arange(80 * 90, dtype=np.uint16).reshape(80, 90)
    file = dicom(grey)
    # The first image starts the child, which may take longer than that image has.
    hasty.wait(lambda: hasty.predict(file, headers=hasty.headers).status_code == 200, 60)
    with asking(hasty, file, clients=2) as statuses:
        with stopped(child(hasty.process.pid)):
            # The stopped child is replaced, and the next one may answer at once.
            answers: list[Any] = []
            hasty.wait(lambda: answers.append(ready(hasty)) or answers[-1].status_code == 503, 15)
            error = answers[-1].json()["error"]
            assert (error["code"], "none was answered for 2 s" in error["message"]) == (
                "stalled",
                True,
            )
            assert 504 in statuses
            assert hasty.client.get("/health").status_code == 200
        hasty.wait(lambda: ready(hasty).status_code == 200, 15)
        hasty.wait(lambda: statuses[-1] == 200, 15)
    assert ready(hasty).status_code == 200
