"""When alerts fire and when they stay silent, by promtool."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring import ALERTS, PROMTOOL, ROOT
from prometheus_client.parser import text_string_to_metric_families

from cxr_serving.http.metrics import Metrics


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"\d+[mhd]", rule["for"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"].split()) > 15


def test_buckets_reach_beyond_the_latency_that_alerts() -> None:
    metrics = Metrics()
    metrics.request_seconds.labels("/predict")
    limit = float(ALERTS["PredictionsSlow"]["expr"].rpartition(">")[2])
    bounds = {
        float(sample.labels["le"])
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "cxr_request_seconds_bucket"
    }
    assert limit in bounds
    assert any(limit < bound < float("inf") for bound in bounds)


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """A series of promtool: ``0x60`` is 61 minutes of 0, ``0+5x60`` grows by 5 a minute."""
    pairs = {"job": "cxr-serving", "instance": "serving:8000", **labels}
    written = ", ".join(f'{key}="{value}"' for key, value in pairs.items())
    return {"series": f"{name}{{{written}}}", "values": values}


def requests(status: str, values: str, route: str = "/predict") -> dict[str, str]:
    return series("cxr_requests_total", values, route=route, status=status)


def latency(slow: str, fast: str) -> list[dict[str, str]]:
    """Requests that took 2 to 4 seconds, and those that took less than a second."""
    name = "cxr_request_seconds_bucket"
    buckets = [("1", fast), ("2", fast), ("4", slow), ("+Inf", slow)]
    return [series(name, values, route="/predict", le=le) for le, values in buckets]


def model(age: int, ready: str = "1x90", pinned: str = "0x90") -> list[dict[str, str]]:
    """A model that is so many seconds old at the start, which promtool calls 0."""
    return [
        series("cxr_model_confirmed_timestamp_seconds", f"-{age}x90"),
        series("cxr_model_ready", ready),
        series("cxr_model_pinned", pinned),
    ]


def drift(intensity: str, images: str) -> list[dict[str, str]]:
    return [
        series("cxr_drift_psi", intensity, of="intensity"),
        series("cxr_drift_psi", "0.01x300", of="predictions"),
        series("cxr_drift_images", images),
    ]


def gate(accepted: str, rejected: str) -> list[dict[str, str]]:
    """Images judged by the gate."""
    return [
        series("cxr_gate_images_total", accepted, accepted="true"),
        series("cxr_gate_images_total", rejected, accepted="false"),
    ]


def replicas(
    metric: str, number: int, version: str = "v", values: str = "1x60"
) -> list[dict[str, str]]:
    """``cxr_model_<metric>`` of several replicas."""
    of_model = {} if metric == "ready" else {"version": version}
    return [
        series(f"cxr_model_{metric}", values, instance=f"{version}-{replica}:8000", **of_model)
        for replica in range(number)
    ]


DAY = 24 * 3600
# Between two values of a series, where a minute would make too many.
INTERVALS = {"ModelPinned": "10m"}
# Alert, what Prometheus sees (a value a minute), after how long, how many fire.
CASES: list[tuple[str, list[dict[str, str]], str, int]] = [
    ("ServiceDown", [series("up", "1x5 0x10")], "8m", 1),
    ("ServiceDown", [series("up", "1x5 0x10")], "7m", 0),
    ("ServiceDown", [series("up", "1x5 0 1x10")], "8m", 0),
    ("ServiceNotReady", [series("cxr_model_ready", "0x10")], "2m", 1),
    ("ServiceNotReady", [series("cxr_model_ready", "0 1x10")], "9m", 0),
    ("ServiceRestarts", [series("process_start_time_seconds", "1x5 2x5 3x5 4x5")], "20m", 1),
    ("ServiceRestarts", [series("process_start_time_seconds", "1x5 2x50")], "20m", 0),
    ("RequestsFail", [requests("200", "0+98x60"), requests("503", "0+2x60")], "30m", 1),
    ("RequestsFail", [requests("200", "0+995x60"), requests("503", "0+5x60")], "30m", 0),
    # One lone failure, and hardly any other request.
    ("RequestsFail", [requests("200", "0+1x60"), requests("500", "0x20 1x40")], "31m", 0),
    ("RequestsFail", [requests("200", "0+9x60"), requests("503", "0+9x60", "/ready")], "30m", 0),
    ("RequestsFail", [requests("200", "5x60"), requests("503", "5x60")], "30m", 0),
    ("PredictionsSlow", latency("0+100x60", "0+98x60"), "30m", 1),
    ("PredictionsSlow", latency("0+1000x60", "0+995x60"), "30m", 0),
    ("PredictionsSlow", latency("7x60", "0x60"), "30m", 0),
    ("ImagesRejected", [series("cxr_rejections_total", "0+1x60", reason="deadline")], "30m", 1),
    (
        "ImagesRejected",
        [series("cxr_rejections_total", "0x20 4x40", reason="queue_full")],
        "35m",
        0,
    ),
    ("ImagesRejected", [series("cxr_rejections_total", "0+9x60", reason="rate_limit")], "30m", 0),
    ("RateLimitNotShared", [series("cxr_rate_limit_fallbacks_total", "0+9x60")], "30m", 1),
    ("RateLimitNotShared", [series("cxr_rate_limit_fallbacks_total", "0x20 9x40")], "35m", 0),
    ("GateRejects", gate("0+9x120", "0+1x120"), "30m", 1),
    ("GateRejects", gate("0+98x120", "0+2x120"), "30m", 0),
    # Too few images to tell.
    ("GateRejects", gate("5+1x120", "0x20 20x100"), "60m", 0),
    ("ImagesDrift", drift("0.3x300", "200x300"), "61m", 1),
    ("ImagesDrift", drift("0.3x300", "199x300"), "90m", 0),
    ("ImagesDrift", drift("0.2x300", "900x300"), "90m", 0),
    (
        "ModelStale",
        [series("cxr_model_stale", "1x60"), series("cxr_model_ready", "1x60")],
        "16m",
        1,
    ),
    (
        "ModelStale",
        [series("cxr_model_stale", "1x60"), series("cxr_model_ready", "0x60")],
        "16m",
        0,
    ),
    ("ModelOld", model(9 * DAY + 1), "61m", 1),
    ("ModelOld", model(8 * DAY), "61m", 0),
    ("ModelOld", model(9 * DAY + 1, pinned="1x90"), "61m", 0),
    # The time is 0 as long as there is no model.
    ("ModelOld", model(20000 * DAY, ready="0x90"), "61m", 0),
    ("ModelRejected", [series("cxr_model_rejections_total", "0x5 1x200")], "10m", 1),
    ("ModelRejected", [series("cxr_model_rejections_total", "0x5 1x200")], "70m", 0),
    ("ReplicaRejects", [*replicas("ready", 3), *replicas("rejected", 1)], "6m", 1),
    ("ReplicaRejects", [*replicas("ready", 3), *replicas("rejected", 3)], "60m", 0),
    ("ReplicaRejects", replicas("ready", 3), "60m", 0),
    ("ReplicasDiffer", [*replicas("info", 2), *replicas("info", 1, "other")], "16m", 1),
    ("ReplicasDiffer", [*replicas("info", 2), *replicas("info", 1, "other", "1x3")], "60m", 0),
    ("ReplicasDiffer", replicas("info", 3), "60m", 0),
    ("ModelPinned", [series("cxr_model_pinned", "1x200")], "25h", 1),
    ("ModelPinned", [series("cxr_model_pinned", "1x120 0 1x79")], "25h", 0),
]


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    for fires in (0, 1):
        assert {name for name, *_, count in CASES if count == fires} == set(ALERTS)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("name", ALERTS)
def test_alert_fires_when_it_should(name: str, tmp_path: Path) -> None:
    interval = INTERVALS.get(name, "1m")

    def case(seen: list[dict[str, str]], after: str, count: int) -> dict[str, Any]:
        alert = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
        samples = [{"labels": "{}", "value": count}] if count else []
        test = {"expr": alert, "eval_time": after, "exp_samples": samples}
        return {"interval": interval, "input_series": seen, "promql_expr_test": [test]}

    interval = INTERVALS.get(name, "1m")
    file = tmp_path / "test.yml"
    content = {
        "rule_files": [str(ROOT / "deploy" / "alerts.yml")],
        "evaluation_interval": interval,
        "tests": [case(seen, after, n) for other, seen, after, n in CASES if other == name],
    }
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_reads_its_configuration() -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", "config", ROOT / "deploy" / "prometheus.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout
