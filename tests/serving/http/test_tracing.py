"""Spans arrive at a collector, over real HTTP."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from net import served
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def test_requests_are_traced_if_the_environment_names_an_endpoint(
    serve: Callable[..., Any],
    publish_bundle: Callable[..., Path],
    tmp_path: Path,
    image: bytes,
    monkeypatch: Any,
) -> None:
    spans: dict[str, Any] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
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
        server = serve(tmp_path)
        server.wait_for_version(publish_bundle(server.data_root, seed=1).name)
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert server.predict(image, headers={"traceparent": parent}).status_code == 200
        server.wait(lambda: len(spans) >= 3, 30)
    assert spans.keys() == {"POST /predict", "decode", "infer"}
    request = spans["POST /predict"]
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert spans["decode"].parent_span_id == request.span_id
    assert spans["infer"].parent_span_id == request.span_id
    assert not any("health" in name or "ready" in name for name in spans)
