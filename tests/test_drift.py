from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from net import served

from cxr_assets import drift
from cxr_serving.http.metrics import Metrics

NOW = datetime(2026, 1, 4, 3, tzinfo=UTC)
HIGH = {"intensity": 0.3, "predictions": 0.0}
LOW = {"intensity": 0.2, "predictions": 0.0}


def acts(*measured: tuple[int, dict[str, float] | None]) -> list[int]:
    """The minutes at which to act."""
    cursor, found = "", []
    for minute, psi in measured:
        cursor, act = drift.follow(cursor, psi, NOW + timedelta(minutes=minute))
        found += [minute] if act else []
    return found


def test_a_drift_is_acted_on_once_after_an_hour() -> None:
    assert acts(*((minute, HIGH) for minute in range(0, 600, 10))) == [60]


def test_what_does_not_last_is_not_acted_on() -> None:
    assert acts((0, HIGH), (50, HIGH), (55, LOW), (60, HIGH), (110, HIGH)) == []


def test_a_restarted_service_is_no_second_drift_but_one_after_calm_is() -> None:
    assert acts((0, HIGH), (60, HIGH), (70, None), (80, HIGH), (200, HIGH)) == [60]
    assert acts((0, HIGH), (60, HIGH), (70, LOW), (80, HIGH), (140, HIGH)) == [60, 140]


class Service(BaseHTTPRequestHandler):
    """Answers /metrics as the service does, and nothing else."""

    metrics: Metrics

    def do_GET(self) -> None:
        known = self.path == "/metrics"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(self.metrics.render() if known else b"")

    def log_message(self, *_: object) -> None: ...


def test_the_metrics_of_the_service_are_read() -> None:
    metrics = Service.metrics = Metrics()
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Service)) as port:
        url = f"http://127.0.0.1:{port}"
        assert drift.measured(url) is None
        metrics.drift_psi.labels("intensity").set(0.5)
        metrics.drift_images.set(drift.FEWEST - 1)
        assert drift.measured(url) is None
        metrics.drift_images.set(drift.FEWEST)
        assert drift.measured(url) == {"intensity": 0.5}
        with pytest.raises(drift.NotMeasured, match="does not answer: 404"):
            drift.measured(f"{url}/elsewhere")
    with pytest.raises(drift.NotMeasured, match="does not answer"):
        drift.measured(url)
    with pytest.raises(drift.NotMeasured, match="CXR_SERVICE_URL"):
        drift.measured(None)


def test_the_limits_are_those_of_the_alert() -> None:
    rules = yaml.safe_load((Path(__file__).parents[1] / "deploy" / "alerts.yml").read_text())
    (alert,) = [
        rule
        for group in rules["groups"]
        for rule in group["rules"]
        if rule["alert"] == "ImagesDrift"
    ]
    drifting = f"cxr_drift_psi > {drift.LIMIT}"
    enough = f"cxr_drift_images >= {drift.FEWEST}"
    assert alert["expr"] == f"{drifting} and on (job, instance) {enough}"
    assert alert["for"] == f"{drift.LASTING // timedelta(hours=1)}h"
