"""What a watcher does, read from its state and its metrics."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher
from cxr_serving.model.predictor import Predictor


def load(directory: Path) -> Predictor:
    return Predictor(directory, threads=1)


def value(metrics: Metrics, name: str) -> float:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name:
                return sample.value
    raise LookupError(name)


def serving(watcher: Watcher) -> str | None:
    model = watcher.state.model
    return None if model is None else model.record.version
