"""What the service counts and times, in the Prometheus format."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from cxr_serving.bundle import BundleRecord


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.requests = Counter(
            "cxr_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self.request_seconds = Histogram(
            "cxr_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            registry=self._registry,
        )
        self.predictions = Counter(
            "cxr_predictions", "Films classified.", ["label"], registry=self._registry
        )
        self.films_in_progress = Gauge(
            "cxr_films_in_progress",
            "Films that are classified or wait for it.",
            registry=self._registry,
        )
        self.inference_seconds = Histogram(
            "cxr_inference_seconds",
            "Decoding a film and the forward pass, without waiting.",
            registry=self._registry,
        )
        self.model_loads = Counter(
            "cxr_model_loads", "Models that came to serve.", registry=self._registry
        )
        self.model_refusals = Counter(
            "cxr_model_refusals", "Models that were refused.", registry=self._registry
        )
        self.model_ready = Gauge(
            "cxr_model_ready", "1 while a model serves.", registry=self._registry
        )
        self.model_stale = Gauge(
            "cxr_model_stale",
            "1 while the newest model is missing or refused; /ready says why.",
            registry=self._registry,
        )
        self._model = Info("cxr_model", "The model that serves.", registry=self._registry)

    def describe_model(self, record: BundleRecord) -> None:
        """Name the model that serves."""
        self._model.info(
            {
                "asset": record.asset,
                "version": record.version,
                "fingerprint": record.fingerprint,
                "synthetic": str(record.synthetic).lower(),
            }
        )

    def render(self) -> bytes:
        """The Prometheus text format (``prometheus_client.CONTENT_TYPE_LATEST``)."""
        return generate_latest(self._registry)
