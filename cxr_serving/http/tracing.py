"""OpenTelemetry traces, enabled by the standard environment variables."""

import os
from typing import TYPE_CHECKING

from opentelemetry import trace
from starlette.applications import Starlette

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def install(app: Starlette) -> "TracerProvider | None":
    """Trace requests if the environment names an endpoint for spans.

    Returns:
        The provider to shut down at the end, which sends the last spans; None without traces.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
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
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    app.add_middleware(
        OpenTelemetryMiddleware,
        excluded_urls=parse_excluded_urls("/health,/ready,/metrics"),
        exclude_spans=["receive", "send"],
    )
    return provider
