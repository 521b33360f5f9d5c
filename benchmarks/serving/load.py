"""Images sent as fast as they are answered, by a process of its own.

``python -m benchmarks.serving.load PORT IMAGES OUTPUT --clients 16 --seconds 60`` is a closed
loop: each client keeps one connection, and sends its next image when the last one was answered.
Meanwhile one more client asks for ``/health`` every 50 ms. It imports the standard library alone
and has all requests ready as bytes, so that it takes next to nothing of the processors that it
shares with the service; ``cpu_seconds`` tells how much.
"""

import argparse
import asyncio
import itertools
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

_BOUNDARY = b"benchmark"
_HEALTH_SECONDS = 0.05
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """How one image was answered.

    Attributes:
        image: its file name.
        seconds: from the first byte sent to the last received.
        status: of HTTP, or 0 when the connection broke.
        body: of the answer, or what broke.
    """

    image: str
    seconds: float
    status: int
    body: str

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Record:
    """What a run of the load has seen.

    Attributes:
        seconds: from the first request to the last answer.
        cpu_seconds: of the processor that the load itself took.
        answers: one for each image sent.
        health: seconds of each ``/health``, infinite when it failed.
    """

    seconds: float
    cpu_seconds: float
    answers: list[Answer]
    health: list[float]

    @property
    def failed(self) -> list[Answer]:
        """What was not answered with 200."""
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def throughput(self) -> float:
        """Images classified a second."""
        return (len(self.answers) - len(self.failed)) / self.seconds


def start(
    port: int,
    images: Path,
    output: Path,
    clients: int,
    seconds: float | None = None,
    requests: int | None = None,
    pause: float = 0,
) -> subprocess.Popen[bytes]:
    """Run the load in a process of its own, for ``seconds`` or a number of ``requests``.

    SIGTERM ends it, too, once all that was sent is answered. Between an answer and its next image a
    client waits for a ``pause`` in seconds.
    """
    limit = ["--seconds", str(seconds)] if requests is None else ["--requests", str(requests)]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", __name__, str(port), str(images), str(output)),
            *("--clients", str(clients), "--pause", str(pause), *limit),
        ]
    )


def read(output: Path) -> Record:
    """What a load that has ended wrote."""
    contents = json.loads(output.read_text())
    contents["answers"] = [Answer(**answer) for answer in contents["answers"]]
    return Record(**contents)


def run(
    port: int,
    images: Path,
    clients: int,
    seconds: float | None = None,
    requests: int | None = None,
) -> Record:
    """Run the load to its end.

    Args:
        port: of the service, on loopback.
        images: folder of JPEGs.
        clients: that send at once.
        seconds: after which nothing more is sent; or
        requests: after which nothing more is sent.

    Raises:
        RuntimeError: it failed.
    """
    with NamedTemporaryFile(suffix=".json") as output:
        process = start(port, images, Path(output.name), clients, seconds, requests)
        if process.wait() != 0:
            raise RuntimeError(f"the load on port {port} failed: see above")
        return read(Path(output.name))


class _Connection:
    """One client's, kept alive over its requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes) -> tuple[int, str]:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await self._exchange(request)
        except (OSError, EOFError) as error:
            self.close()
            return 0, repr(error)

    async def _exchange(self, request: bytes) -> tuple[int, str]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body.decode()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _post(image: bytes) -> bytes:
    body = (
        b'--%b\r\nContent-Disposition: form-data; name="file"; filename="image.jpeg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n--%b--\r\n" % (_BOUNDARY, image, _BOUNDARY)
    )
    return (
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=%b\r\n\r\n" % (len(body), _BOUNDARY)
    ) + body


async def _client(
    port: int, requests: Iterator[tuple[str, bytes]], pause: float, answers: list[Answer]
) -> None:
    connection = _Connection(port)
    for image, request in requests:
        started = time.perf_counter()
        status, body = await connection.exchange(request)
        answers.append(Answer(image, time.perf_counter() - started, status, body))
        if pause:
            await asyncio.sleep(pause)
    connection.close()


async def _ask_health(port: int, seconds: list[float]) -> None:
    connection = _Connection(port)
    while True:
        started = time.perf_counter()
        status, _ = await connection.exchange(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        seconds.append(time.perf_counter() - started if status == 200 else math.inf)
        await asyncio.sleep(_HEALTH_SECONDS)


async def _run(
    port: int, images: Path, clients: int, pause: float, going: Callable[[int], bool]
) -> Record:
    bodies = [(path.name, _post(path.read_bytes())) for path in sorted(images.rglob("*.jpeg"))]
    # One iterator for all clients: `--requests` counts what all of them send.
    requests = (
        bodies[number % len(bodies)] for number in itertools.takewhile(going, itertools.count())
    )
    answers: list[Answer] = []
    health: list[float] = []
    asking = asyncio.create_task(_ask_health(port, health))
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(_client(port, requests, pause, answers) for _ in range(clients)))
    ended = time.perf_counter()
    asking.cancel()
    return Record(ended - started, time.process_time() - cpu, answers, health)


def main() -> None:
    """Send, and write what was seen to the output as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("images", type=Path, help="folder of JPEGs")
    parser.add_argument("output", type=Path)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0, help="seconds between two images")
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--seconds", type=float)
    limit.add_argument("--requests", type=int)
    arguments = parser.parse_args()
    end: float = time.perf_counter() + (arguments.seconds or math.inf)
    most: float = arguments.requests or math.inf
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))

    def going(number: int) -> bool:
        return number < most and time.perf_counter() < end and not stopped

    record = asyncio.run(
        _run(arguments.port, arguments.images, arguments.clients, arguments.pause, going)
    )
    arguments.output.write_text(json.dumps(asdict(record)))


if __name__ == "__main__":
    main()
