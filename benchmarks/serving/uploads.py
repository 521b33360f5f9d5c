"""Requests that a service should not trip over."""

import random
from collections.abc import Iterator, Sequence

from benchmarks.serving import broken
from benchmarks.serving.exchange import Upload
from benchmarks.serving.forge import encode, image

PREDICT, BATCH, EXPLAIN = "/predict", "/predict/batch", "/explain"
ROUTES = (PREDICT, BATCH, EXPLAIN)
_MULTIPART = "multipart/form-data; boundary=x"


def uploads(number: int, seed: int = 0) -> list[Upload]:
    """Requests of every kind, in random order: the same for the same ``number`` and ``seed``.

    Of more than a few hundred, all that are not of the fixed collection are mutated images. Fewer
    are a sample of it. What is heavy is in none: see :func:`heavy`.
    """
    rng = random.Random(seed)
    fixed = [*_files(rng), *_forms(), *_http()]
    if number <= len(fixed):
        return rng.sample(fixed, number)
    mutants = broken.mutants(rng)
    for index in range(number - len(fixed)):
        fixed.append(_one(f"mutant {index}", rng.choice(ROUTES), next(mutants), rng))
    rng.shuffle(fixed)
    return fixed


def heavy() -> list[Upload]:
    """What is within all limits and costs the most; some of it may be given up, with a 504."""
    alone = [
        Upload(
            name,
            path,
            lambda make=make, path=path: [_post(path, form([make()]))],  # type: ignore[misc]
            heavy=True,
        )
        for name, make in broken.heavy().items()
        for path in (PREDICT, EXPLAIN)
    ]
    four = [
        Upload(
            f"four of {name}",
            BATCH,
            lambda make=make: [_post(BATCH, form([make()] * 4))],  # type: ignore[misc]
            heavy=True,
        )
        for name, make in broken.heavy().items()
    ]
    return [*alone, *four]


def form(
    files: Sequence[bytes], name: bytes = b"image.jpeg", content_type: bytes = b"image/jpeg"
) -> bytes:
    """A multipart body with ``files`` in the field ``file``; the boundary is ``x``."""
    head = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
        b"Content-Type: %b\r\n\r\n" % (name, content_type)
    )
    return b"".join(head + file + b"\r\n" for file in files) + b"--x--\r\n"


def _post(path: str, body: bytes, content_type: str = _MULTIPART, headers: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {content_type}\r\n{headers}\r\n"
    )
    return head.encode() + body


def _one(name: str, path: str, file: bytes, rng: random.Random, rejected: bool = False) -> Upload:
    body = form([file], rng.choice(broken.NAMES), rng.choice(broken.TYPES))
    return Upload(name, path, lambda: [_post(path, body)], rejected)


def _files(rng: random.Random) -> Iterator[Upload]:
    """Each broken file to one route, and each name and type with a good image."""
    for makes, rejected in ((broken.rejected(), True), (broken.odd(), False)):
        for index, (name, make) in enumerate(makes.items()):
            path = ROUTES[index % len(ROUTES)]
            lying = (rng.choice(broken.NAMES), rng.choice(broken.TYPES))
            yield Upload(
                name,
                path,
                lambda make=make, path=path, lying=lying: [_post(path, form([make()], *lying))],  # type: ignore[misc]
                rejected,
            )
    good = encode(image(), "JPEG")
    for index, lie in enumerate(broken.NAMES):
        for content_type in broken.TYPES:
            body = form([good], lie, content_type)
            path = ROUTES[index % len(ROUTES)]
            yield Upload(
                f"an image as {lie[:20]!r}, {content_type[:20]!r}",
                path,
                lambda path=path, body=body: [_post(path, body)],  # type: ignore[misc]
            )


def _forms() -> Iterator[Upload]:
    """Bodies that are not the multipart that they should be."""
    good = encode(image(), "JPEG")
    whole = form([good])
    part = whole.removesuffix(b"--x--\r\n")
    field_of_text = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    inner = whole.replace(b"--x", b"--y")
    bodies: dict[str, tuple[bytes, str, bool]] = {
        "empty file": (form([b""]), _MULTIPART, True),
        "no part": (b"--x--\r\n", _MULTIPART, True),
        "nothing": (b"", _MULTIPART, True),
        "noise": (random.Random(4).randbytes(50_000), _MULTIPART, True),
        "no boundary": (whole, "multipart/form-data", True),
        "an empty boundary": (whole, "multipart/form-data; boundary=", True),
        "another boundary": (whole, "multipart/form-data; boundary=y", True),
        "a boundary of 5000": (whole, "multipart/form-data; boundary=" + "x" * 5000, True),
        "a boundary in quotes": (whole, 'multipart/form-data; boundary="x"', False),
        "two boundaries": (whole, "multipart/form-data; boundary=y; boundary=x", False),
        "a charset": (whole, _MULTIPART + "; charset=utf-7", False),
        "mixed": (whole, "multipart/mixed; boundary=x", True),
        "urlencoded": (b"file=image", "application/x-www-form-urlencoded", True),
        "json": (b'{"file": "image"}', "application/json", True),
        "json of depth 100,000": (b"[" * 100_000, "application/json", True),
        "an image alone": (good, "image/jpeg", True),
        "no type": (whole, "", True),
        "a type that is none": (whole, "/;;;=", True),
        "no end": (part, _MULTIPART, False),
        "no part's end": (whole[:-20], _MULTIPART, False),
        "half": (whole[: len(whole) // 2], _MULTIPART, False),
        "text behind": (whole + b"epilogue" * 100, _MULTIPART, False),
        "text before": (b"preamble\r\n" + whole, _MULTIPART, False),
        "line feeds alone": (whole.replace(b"\r\n", b"\n"), _MULTIPART, False),
        "another field": (whole.replace(b'name="file"', b'name="image"'), _MULTIPART, True),
        "no field": (whole.replace(b' name="file";', b""), _MULTIPART, True),
        "no file name": (whole.replace(b' filename="image.jpeg"', b""), _MULTIPART, False),
        "no disposition": (whole.replace(b"Content-Disposition", b"X"), _MULTIPART, True),
        "a disposition of 1 MB": (form([good], b"x" * 2**20), _MULTIPART, False),
        "a header without a colon": (whole.replace(b"Type: ", b"Type ", 1), _MULTIPART, False),
        "10,000 headers": (
            whole.replace(b"\r\n\r\n", b"\r\nA: b" * 10_000 + b"\r\n\r\n", 1),
            _MULTIPART,
            False,
        ),
        "base64": (
            whole.replace(b"Content-Type", b"Content-Transfer-Encoding: base64\r\nA"),
            _MULTIPART,
            False,
        ),
        "a name with a charset": (
            whole.replace(b"filename=", b"filename*=UTF-8''%ff;a="),
            _MULTIPART,
            False,
        ),
        "5000 fields": (field_of_text * 5000 + whole, _MULTIPART, False),
        "5000 fields alone": (field_of_text * 5000 + b"--x--\r\n", _MULTIPART, True),
        "5000 empty files": (form([b""] * 5000), _MULTIPART, True),
        "300 images": (form([good] * 300), _MULTIPART, False),
        "two images": (form([good, good]), _MULTIPART, False),
        "an image and a text": (form([good, b"text"]), _MULTIPART, False),
        "a field of 2 MB": (
            field_of_text.replace(b"\r\n1\r\n", b"\r\n" + b"1" * 2**21 + b"\r\n") + whole,
            _MULTIPART,
            False,
        ),
        "a form in a form": (
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n'
            b"Content-Type: multipart/mixed; boundary=y\r\n\r\n" + inner + b"\r\n--x--\r\n",
            _MULTIPART,
            True,
        ),
    }
    for name, (body, body_type, rejected) in bodies.items():
        for path in ROUTES:
            data = _post(path, body, body_type)
            yield Upload(name, path, lambda data=data: [data], rejected)  # type: ignore[misc]
    for query in (
        "label=lupus",
        "label=../../etc/passwd",
        "label=%00",
        "label=<script>",
        "label=normal&label=normal",
        "label=",
        "format=exe",
        "format=png&format=json",
        "format=",
        "a=" + "b" * 5000,
    ):
        path = f"{EXPLAIN}?{query.replace('<', '%3C').replace('>', '%3E')}"
        yield Upload(query[:20], path, lambda path=path: [_post(path, whole)])  # type: ignore[misc]


def _http() -> Iterator[Upload]:
    """Requests that are odd or broken as HTTP."""
    good = form([encode(image(), "JPEG")])
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece)
        for piece in (good[at : at + 1000] for at in range(0, len(good), 1000))
    )

    for path in ROUTES:
        line = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
        kind = f"Content-Type: {_MULTIPART}\r\n".encode()
        length = b"Content-Length: %d\r\n" % len(good)
        chunked = b"Transfer-Encoding: chunked\r\n"
        whole = _post(path, good)
        third = len(whole) // 3
        of_form: dict[str, Sequence[bytes]] = {
            "chunked": [line + kind + chunked + b"\r\n" + chunks + b"0\r\n\r\n"],
            "slow": [whole[:third], whole[third : 2 * third], whole[2 * third :]],
            "expects": [line + kind + length + b"Expect: 100-continue\r\n\r\n", good],
            "gzip": [line + kind + length + b"Content-Encoding: gzip\r\n\r\n" + good],
            "request id of html": [
                line + kind + length + b"X-Request-ID: <script>alert(1)\r\n\r\n" + good
            ],
            "request id of 5000": [
                line + kind + length + b"X-Request-ID: " + b"x" * 5000 + b"\r\n\r\n" + good
            ],
            "traceparent of noise": [
                line + kind + length + b"traceparent: 00-zz-\xff-01\r\n\r\n" + good
            ],
            "a forged address": [
                line + kind + length + b"X-Forwarded-For: <script>, \xff\r\n\r\n" + good
            ],
            "authorisation of noise": [
                line + kind + length + b"Authorization: Bearer \xff\xfe\r\n\r\n" + good
            ],
            "no key": [line + kind + length + b"Authorization: Bearer\r\n\r\n" + good],
        }
        other: dict[str, Sequence[bytes]] = {
            "a length too short": [
                line + kind + b"Content-Length: %d\r\n\r\n" % (len(good) - 500) + good
            ],
            "40 MB": [
                line + kind + b"Content-Length: %d\r\n\r\n" % (40 * 2**20),
                bytes(40 * 2**20),
            ],
            "40 MB, chunked": [
                line + kind + chunked + b"\r\n",
                (b"100000\r\n" + bytes(2**20) + b"\r\n") * 40,
            ],
            "a negative length": [line + kind + b"Content-Length: -1\r\n\r\n" + good],
            "a length that is none": [line + kind + b"Content-Length: many\r\n\r\n" + good],
            "two lengths": [line + kind + length + b"Content-Length: 5\r\n\r\n" + good],
            "length and chunks": [line + kind + length + chunked + b"\r\n" + chunks + b"0\r\n\r\n"],
            "chunks of no size": [line + kind + chunked + b"\r\nzz\r\n" + good],
            "200 kB of headers": [line + kind + length + b"A: b\r\n" * 40_000 + b"\r\n" + good],
            "a header of 200 kB": [
                line + kind + length + b"A: " + b"b" * 200_000 + b"\r\n\r\n" + good
            ],
            "another encoding": [line + kind + b"Transfer-Encoding: gzip\r\n\r\n" + good],
            "an upgrade": [
                line + kind + length + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + good
            ],
            "HTTP 0.9": [b"POST " + path.encode() + b"\r\n\r\n" + good],
            "HTTP 2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
            "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)],
            "not HTTP": [random.Random(5).randbytes(3000)],
        }
        gone: dict[str, Sequence[bytes]] = {
            "a length too long": [
                line + kind + b"Content-Length: %d\r\n\r\n" % (len(good) + 500) + good
            ],
            "cut in the head": [whole[:60]],
            "cut in the image": [whole[:third], whole[third : 2 * third]],
            "chunks without end": [line + kind + chunked + b"\r\n" + chunks],
        }
        for name, pieces in of_form.items():
            yield Upload(name, path, lambda pieces=pieces: pieces)  # type: ignore[misc]
        for name, pieces in other.items():
            yield Upload(name, path, lambda pieces=pieces: pieces, form=False)  # type: ignore[misc]
        for name, pieces in gone.items():
            yield Upload(name, path, lambda pieces=pieces: pieces, leaves=True)  # type: ignore[misc]
        for method in ("PUT", "DELETE", "PATCH", "TRACE"):
            request = whole.replace(b"POST", method.encode(), 1)
            yield Upload(method, path, lambda request=request: [request], rejected=True)  # type: ignore[misc]
    for target in ("/../../etc/passwd", "/predict/../model/pin", "//predict", "/%2e%2e/x", "/\xff"):
        request = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1")
        yield Upload(f"GET {target}", target, lambda request=request: [request], form=False)  # type: ignore[misc]
