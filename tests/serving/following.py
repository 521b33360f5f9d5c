"""What a watcher does, read from its state and its metrics."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher
from cxr_serving.model.predictor import Predictor


def load(directory: Path) -> Predictor:
    return Predictor(directory, threads=1)


def value(metrics: Metrics, name: str) -> float:
    return samples(metrics, name)[0].value


def rejected(metrics: Metrics) -> list[str]:
    """Versions that should serve and were rejected."""
    return [sample.labels["version"] for sample in samples(metrics, "cxr_model_rejected")]


def samples(metrics: Metrics, name: str) -> list[Sample]:
    families = text_string_to_metric_families(metrics.render().decode())
    return [sample for family in families for sample in family.samples if sample.name == name]


def serving(watcher: Watcher) -> str | None:
    model = watcher.state.model
    return None if model is None else model.record.version
