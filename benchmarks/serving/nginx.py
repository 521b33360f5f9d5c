"""The project's nginx in front of replicas, as Debian installs it."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.serving.server import free_port

# Debian has it where only root looks.
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx" / "cxr.conf"
_START_SECONDS = 30

# Debian's own names the same, with places that only root may write to.
_AROUND = """
daemon off;
user root root;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {ours}
}}
"""


def placed(configuration: str, port: int, replicas: Sequence[int]) -> str:
    """The configuration, listening on a port of loopback alone, for replicas on these ports."""
    listed = re.compile(r"(?:    server 127\.0\.0\.1:\d+(.*;\n))+")
    there = listed.sub(
        lambda found: "".join(f"    server 127.0.0.1:{one}{found[1]}" for one in replicas),
        configuration,
    )
    return there.replace("listen 80;", f"listen 127.0.0.1:{port};")


@contextmanager
def nginx(folder: Path, replicas: Sequence[int]) -> Iterator[int]:
    """Run nginx in front of replicas on these ports of loopback; yields its own port.

    Args:
        folder: an empty one, for its files.
        replicas: ports.

    Raises:
        RuntimeError: it did not start; the message has its log.
    """
    port = free_port()
    configuration, log = folder / "nginx.conf", folder / "nginx.log"
    ours = placed(CONFIGURATION.read_text(), port, replicas)
    configuration.write_text(_AROUND.format(folder=folder, ours=ours))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(NGINX), "-e", "stderr", "-p", folder, "-c", configuration],
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start: {log.read_text()}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def _listens(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    except httpx.TransportError:
        return False
    return True
