"""Which forms and bodies POST /predict accepts and rejects, over a real connection."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from answers import assert_error
from fastapi.testclient import TestClient
from PIL import Image

from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings

MakePixels = Callable[[int, int], np.ndarray]
Encode = Callable[..., bytes]


def multipart(image: bytes, boundary: bytes = b"x") -> bytes:
    return (
        b'--%b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%b\r\n--%b--\r\n'
        % (boundary, image, boundary)
    )


def raw(port: int, *parts: bytes, finish: bool = False) -> tuple[int, dict[str, Any]]:
    """Send bytes as they are; the status and the JSON body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"files": {"image": ("image.jpeg", b"image")}},
        {"files": {"file": (None, b"image")}},
        {"data": {"file": "image"}},
        {"json": {"file": "image"}},
        {"content": b"\xff\xd8", "headers": {"Content-Type": "image/jpeg"}},
    ],
)
def test_missing_field_is_422(ready_server: Any, body: dict[str, Any]) -> None:
    answer = ready_server.client.post("/predict", **body)
    assert_error(answer, 422, "missing_file")
    assert "curl -F file=@image.jpeg" in answer.json()["error"]["message"]


def form(*parts: tuple[bytes, bytes]) -> bytes:
    """A form of parts, each with its headers and contents; the boundary is ``x``."""
    body = b"".join(b"--x\r\n%b\r\n\r\n%b\r\n" % part for part in parts)
    return body + b"--x--\r\n"


def post_form(
    server: Any, *parts: tuple[bytes, bytes], path: str = "/predict", boundary: str = "x"
) -> httpx.Response:
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", **server.headers}
    answer: httpx.Response = server.client.post(path, content=form(*parts), headers=headers)
    return answer


IN_FILE = b'Content-Disposition: form-data; name="file"'


@pytest.mark.parametrize(
    "headers",
    [
        IN_FILE,
        IN_FILE + b"\r\nContent-Type: image/jpeg",
        IN_FILE + b"; filename*=UTF-8''r%C3%B6ntgen.jpeg",
        b'content-disposition:form-data;name=file;filename="a; b.jpeg"',
        IN_FILE + b"; filename=a.jpeg\r\nContent-Transfer-Encoding: Binary",
    ],
)
def test_an_image_needs_no_file_name(guarded: Any, image: bytes, headers: bytes) -> None:
    named = (IN_FILE + b'; filename="image.jpeg"', image)
    expected = post_form(guarded, named).json()["probs"]
    answer = post_form(guarded, (headers, image + bytes(2 * 2**20)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["probs"] == pytest.approx(expected, abs=1e-6)
    other = (b'Content-Disposition: form-data; name="notes"', b"x" * 2**21)
    mixed = post_form(guarded, other, (headers, image), named, path="/predict/batch").json()
    for result in mixed["results"]:
        assert result["prediction"]["probs"] == pytest.approx(expected, abs=1e-6)
    assert len(mixed["results"]) == 2


@pytest.mark.parametrize(
    ("part", "status", "code", "says"),
    [
        ((IN_FILE, b"/home/jane/image.jpeg"), 422, "missing_file", "holds text instead of a file"),
        ((IN_FILE, b""), 422, "missing_file", "holds text instead of a file"),
        ((IN_FILE + b'; filename=""', b""), 400, "undecodable_image", "is empty"),
        ((IN_FILE.replace(b"file", b"image"), b"\xff\xd8"), 422, "missing_file", "field 'file'"),
        ((b'Content-Disposition: form-data; filename="f"', b""), 400, None, "with a name"),
        ((b"Content-Type: image/jpeg", b"\xff\xd8"), 400, None, "with a name"),
        (
            (IN_FILE + b"\r\nContent-Type: multipart/mixed; boundary=y", b"--y--"),
            400,
            None,
            "parts of its own",
        ),
        (
            (IN_FILE + b"\r\nContent-Transfer-Encoding: base64", b"/9j/4AAQ"),
            400,
            None,
            "send its bytes as they are",
        ),
    ],
)
def test_form_without_an_image_gets_the_reason(
    ready_server: Any, part: tuple[bytes, bytes], status: int, code: str | None, says: str
) -> None:
    answer = post_form(ready_server, part)
    assert_error(answer, status, code or "malformed_multipart")
    message = answer.json()["error"]["message"]
    assert says in message
    assert "jane" not in message


@pytest.mark.parametrize(
    ("path", "sent", "most"),
    [("/predict", 2, 1), ("/predict", 3, 1), ("/explain", 2, 1), ("/predict/batch", 35, 32)],
)
def test_too_many_images_are_413_with_the_true_numbers(
    ready_server: Any, image: bytes, path: str, sent: int, most: int
) -> None:
    answer = post_form(ready_server, *[(IN_FILE + b"; filename=f", image[:100])] * sent, path=path)
    assert_error(answer, 413, "too_many_images")
    assert f"{sent} images in one request, but this route accepts at most {most}" in answer.text


def test_forms_as_libraries_write_them(ready_server: Any, image: bytes) -> None:
    def post(content: bytes, boundary: str) -> httpx.Response:
        headers = {"Content-Type": f"multipart/form-data{boundary}"}
        answer: httpx.Response = ready_server.client.post(
            "/predict", content=content, headers=headers
        )
        return answer

    body = multipart(image)
    assert post(body, '; boundary="x"').status_code == 200
    assert post(body, "; charset=utf-8; Boundary=x").status_code == 200
    assert post(b"\r\n" + body + b"an epilogue", "; boundary=x").status_code == 200
    for content, boundary, says in (
        (body, "", "has no boundary; leave that header to the HTTP library"),
        (body, "; boundary=", "has no boundary"),
        (body, "; boundary=y", "is not the multipart form"),
        (b"Jane Doe\r\n" + body, "; boundary=x", "is not the multipart form"),
        (body[:-6], "; boundary=x", "ends before its last boundary"),
    ):
        answer = post(content, boundary)
        assert_error(answer, 400, "malformed_multipart")
        assert says in answer.json()["error"]["message"]
    assert "boundary character" not in ready_server.log(), "a library's, with bytes of the body"
    fields = [(b'Content-Disposition: form-data; name="a"', b"1")] * 17
    answer = post_form(ready_server, (IN_FILE + b"; filename=f", image), *fields)
    assert_error(answer, 413, "too_many_fields")


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b"no boundary in here"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
        ),
        (
            "multipart/form-data; boundary=x",
            multipart(b"image").replace(b"--x--\r\n", b"--x")[:-3] * 2,
        ),
    ],
)
def test_malformed_multipart_is_400(ready_server: Any, content_type: str, content: bytes) -> None:
    answer = ready_server.client.post(
        "/predict", content=content, headers={"Content-Type": content_type}
    )
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["code"] in ("malformed_multipart", "missing_file")


def test_large_body_is_413_by_its_declared_length(ready_server: Any) -> None:
    assert_error(ready_server.predict(bytes(400_000)), 413, "upload_too_large")


def test_large_body_is_413_before_it_is_sent(ready_server: Any) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 99999999999\r\n\r\n"
    )
    status, body = raw(ready_server.port, head)
    assert (status, body["error"]["code"]) == (413, "upload_too_large")


def test_chunked_body_is_counted_as_it_arrives(ready_server: Any) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield multipart(b"").removesuffix(b"\r\n--x--\r\n")
        while sent < 5_000_000:
            sent += 50_000
            yield bytes(50_000)

    answer = ready_server.client.post(
        "/predict",
        content=endless(),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert_error(answer, 413, "upload_too_large")


def test_false_content_length_does_not_bypass_the_limit(ready_server: Any, image: bytes) -> None:
    body = multipart(image)
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
    )
    status, answer = raw(ready_server.port, head % (len(body) - 100), body)
    assert (status, answer["error"]["code"]) == (400, "malformed_multipart")
    assert raw(ready_server.port, head % len(body), body)[0] == 200


def test_client_that_leaves_is_logged_and_does_no_harm(ready_server: Any, image: bytes) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-ID: left-early\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 200000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", ready_server.port)) as connection:
        connection.sendall(head + multipart(image)[:500])
    ready_server.wait(lambda: "left-early" in ready_server.log(), 30)
    [line] = [line for line in ready_server.requests() if line["request_id"] == "left-early"]
    assert (line["route"], line["status"]) == ("/predict", 499)
    assert ready_server.predict(image).status_code == 200


def test_images_never_touch_the_disk(
    tmp_path: Path, publish_bundle: Callable[..., Path], make_pixels: MakePixels
) -> None:
    """Watches every file that this process opens for writing, by Python's audit hook."""
    publish_bundle(tmp_path, seed=1)
    noise = np.random.default_rng(0).integers(0, 128, (2000, 2000), dtype=np.uint8)
    noise += np.linspace(0, 127, 2000).astype(np.uint8)
    image = tmp_path / "image.png"
    Image.fromarray(noise).save(image)
    assert image.stat().st_size > 3_000_000
    content = multipart(image.read_bytes())
    written: list[object] = []
    watching = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        # A number is of what is open already, such as the pipes to a DICOM decoder that starts.
        if event.startswith("tempfile.") or (
            event == "open"
            and not isinstance(arguments[0], int)
            and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            written.append((event, arguments[0]))

    sys.addaudithook(hook)
    with TestClient(create_app(Settings(data_root=tmp_path))) as client:
        while client.get("/ready").status_code != 200:
            pass
        watching = True
        answer = client.post(
            "/predict",
            content=content,
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        (tmp_path / "seen").write_text("by the hook")
        watching = False
    assert answer.status_code == 200, answer.text
    assert written == [("open", str(tmp_path / "seen"))]
