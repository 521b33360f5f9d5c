"""The metrics for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.gate import REASONS

# From a small network on an idle machine to the default deadline of a request.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 4, 8, 15, 30)


# Otherwise each counter has a second series, of the time when it was created.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "cxr_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "cxr_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.requests_in_progress = Gauge(
            "cxr_requests_in_progress", "Requests in flight.", registry=registry
        )
        self.rejections = Counter(
            "cxr_rejections",
            "Requests or images rejected: queue_full, deadline, rate_limit.",
            ["reason"],
            registry=registry,
        )
        for reason in ("queue_full", "deadline", "rate_limit"):
            self.rejections.labels(reason)
        self.rate_limit_fallbacks = Counter(
            "cxr_rate_limit_fallbacks",
            "Requests that this replica counted for itself, while its Redis could not be used.",
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "cxr_decode_seconds",
            "Decoding and resizing an image.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_images = Gauge(
            "cxr_queue_images", "Images queued for a forward pass.", registry=registry
        )
        self.queue_seconds = Histogram(
            "cxr_queue_seconds",
            "Time that an image was queued.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_images = Histogram(
            "cxr_batch_images",
            "Images in a forward pass.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self.inference_seconds = Histogram(
            "cxr_inference_seconds",
            "A forward pass, and judging its images by the gate.",
            buckets=_SECONDS,
            registry=registry,
        )
        # Of a rejected image neither class nor confidence mean anything.
        self.predictions = Counter(
            "cxr_predictions",
            "Images predicted, by top-1 class, without those that the gate rejects.",
            ["label"],
            registry=registry,
        )
        self.confidence = Histogram(
            "cxr_confidence",
            "Probability of the most probable class, without images that the gate rejects.",
            buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
            registry=registry,
        )
        self.uncertain = Counter(
            "cxr_uncertain",
            "Images predicted with less than CXR_CONFIDENCE, without those that the gate rejects.",
            registry=registry,
        )
        self.gate_images = Counter(
            "cxr_gate_images",
            "Images judged by the model's gate: accepted or rejected.",
            ["accepted"],
            registry=registry,
        )
        for accepted in ("true", "false"):
            self.gate_images.labels(accepted)
        self.gate_reasons = Counter(
            "cxr_gate_reasons",
            "Images rejected by the gate for a reason; one with several counts for each.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self.gate_reasons.labels(reason)
        self.drift_psi = Gauge(
            "cxr_drift_psi",
            "Population stability index of the last images, without those that the gate rejects, "
            "against the model's validation images, of pixel intensities and of predicted classes.",
            ["of"],
            registry=registry,
        )
        self.drift_images = Gauge(
            "cxr_drift_images", "Images that cxr_drift_psi compares.", registry=registry
        )
        self.model_loads = Counter(
            "cxr_model_loads", "Models loaded and put into service.", registry=registry
        )
        self.model_rejections = Counter(
            "cxr_model_rejections", "Models that were rejected.", registry=registry
        )
        self._model_rejected = Gauge(
            "cxr_model_rejected",
            "1 for the version that should serve and was rejected; absent otherwise.",
            ["version"],
            registry=registry,
        )
        self._rejected: str | None = None
        self.model_ready = Gauge("cxr_model_ready", "1 while a model serves.", registry=registry)
        self.model_stale = Gauge(
            "cxr_model_stale",
            "1 while the newest or pinned model is missing or rejected; /ready says why.",
            registry=registry,
        )
        self.model_pinned = Gauge(
            "cxr_model_pinned", "1 while a model is pinned.", registry=registry
        )
        self.model_confirmed = Gauge(
            "cxr_model_confirmed_timestamp_seconds",
            "When the pipeline last trained the model that serves, or confirmed it by reusing it.",
            registry=registry,
        )
        self._model = Info("cxr_model", "The model that serves.", registry=registry)

    def name_rejected(self, version: str | None) -> None:
        """Name the version that should serve and was rejected, or none."""
        if version == self._rejected:
            return  # without a moment in which Prometheus does not see it
        self._rejected = version
        self._model_rejected.clear()
        if version is not None:
            self._model_rejected.labels(version).set(1)

    def describe_model(self, record: BundleRecord, runtime: str) -> None:
        """Name the model that serves."""
        self.model_confirmed.set(record.created_at.timestamp())
        self._model.info(
            {
                "asset": record.asset,
                "version": record.version,
                "fingerprint": record.fingerprint,
                "synthetic": str(record.synthetic).lower(),
                "runtime": runtime,
            }
        )

    def render(self) -> bytes:
        """The Prometheus text format (``prometheus_client.CONTENT_TYPE_LATEST``)."""
        return generate_latest(self._registry)
