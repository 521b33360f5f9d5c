"""Spans arrive at a collector, over real HTTP."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from net import served
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings
from cxr_serving.http.tracing import TracingError


def test_requests_are_traced_if_the_environment_names_an_endpoint(
    serve: Callable[..., Any],
    publish_bundle: Callable[..., Path],
    tmp_path: Path,
    image: bytes,
    monkeypatch: Any,
) -> None:
    spans: dict[str, Any] = {}
    tokens: set[str | None] = set()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            tokens.add(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {a.key: a.value.string_value for a in resource.resource.attributes}
                assert names["service.name"] == "cxr-serving"
                for scope in resource.scope_spans:
                    spans.update({span.name: span for span in scope.spans})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with served(HTTPServer(("127.0.0.1", 0), Collector)) as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        headers = tmp_path / "headers"
        headers.write_text("Authorization: Bearer t0ken=\n\nX-Scope: cxr\n")
        server = serve(tmp_path, traces_headers_file=headers)
        server.wait_for_version(publish_bundle(server.data_root, seed=1).name)
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert server.predict(image, headers={"traceparent": parent}).status_code == 200
        server.wait(lambda: len(spans) >= 3, 30)
    assert tokens == {"Bearer t0ken="}
    assert spans.keys() == {"POST /predict", "decode", "infer"}
    request = spans["POST /predict"]
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert spans["decode"].parent_span_id == request.span_id
    assert spans["infer"].parent_span_id == request.span_id
    assert not any("health" in name or "ready" in name for name in spans)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"X-Scope: cxr\nBearer t0ken", "headers, line 2: write `name: value`"),
        ("Authorization: t0ken\N{EN DASH}".encode(), "headers, line 1: write `name: value`"),
        (b"\xfft0ken", "headers cannot be read"),
        (None, "headers cannot be read: FileNotFoundError"),
    ],
)
def test_a_file_of_headers_that_is_wrong_is_named_and_not_quoted(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    path = tmp_path / "headers"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TracingError, match=said) as error:
        create_app(Settings(data_root=tmp_path, traces_headers_file=path))
    assert "t0ken" not in str(error.value)
