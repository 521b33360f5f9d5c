"""OpenTelemetry traces, enabled by the standard environment variables."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry import trace
from starlette.applications import Starlette

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class TracingError(ValueError):
    """A file of headers cannot be used; the message never quotes it."""


def install(app: Starlette, headers_file: Path | None) -> "TracerProvider | None":
    """Trace requests if the environment names an endpoint for spans.

    Args:
        app: whose requests are traced.
        headers_file: what is sent with the spans, such as a token: one line ``name: value`` each.

    Returns:
        The provider to shut down at the end, which sends the last spans; None without traces.

    Raises:
        TracingError: the file cannot be read, or has another line.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    headers = None if headers_file is None else _headers(headers_file)
    # A tenth of the service's imports, which most services do without.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.util.http import parse_excluded_urls

    resource = Resource({SERVICE_NAME: "cxr-serving"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    trace.set_tracer_provider(provider)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(headers=headers)))
    app.add_middleware(
        OpenTelemetryMiddleware,
        excluded_urls=parse_excluded_urls("/health,/ready,/metrics"),
        exclude_spans=["receive", "send"],
    )
    return provider


def _headers(path: Path) -> dict[str, str]:
    # Not by the parser of OpenTelemetry, which logs a line that it rejects.
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TracingError(f"{path} cannot be read: {type(error).__name__}") from None
    headers = {}
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"([\w!#$%&'*+.^`|~-]+):[ \t]*([\x21-\x7e][\x20-\x7e]*?)[ \t]*", line)
        if line.strip() and not found:
            raise TracingError(f"{path}, line {number}: write `name: value`, in ASCII")
        if found:
            headers[found[1].lower()] = found[2]
    return headers
