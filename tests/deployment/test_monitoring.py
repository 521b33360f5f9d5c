"""Prometheus and Grafana of the service, as far as they can be judged without a container."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, BinaryExpr, Expr, MatrixSelector, VectorSelector

from cxr_serving.http.app import create_app
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.settings import Settings
from cxr_serving.model.bundle import BundleRecord

ROOT = Path(__file__).parents[2]
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
[DATASOURCE] = yaml.safe_load((ROOT / "deploy" / "grafana" / "datasources.yml").read_text())[
    "datasources"
]
[JOB] = PROMETHEUS["scrape_configs"]
PROMTOOL = shutil.which("promtool")

# What Prometheus itself adds: series, and labels of every series that it scrapes.
OWN = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
TARGET = {"job", "instance"}


def expressions() -> Iterator[tuple[str, str, str]]:
    """(place, expression, legend) of each alert, panel and annotation."""
    for name, rule in ALERTS.items():
        annotations = " ".join(rule["annotations"].values())
        labels = " ".join(f"{{{{{name}}}}}" for name in re.findall(r"\$labels\.(\w+)", annotations))
        yield name, rule["expr"], labels
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']}-{target['refId']}", target["expr"], target["legendFormat"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"], ""


EXPRESSIONS = list(expressions())


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The label names of each series that the service can expose, by name."""
    metrics = Metrics()
    metrics.describe_model(
        BundleRecord.model_construct(
            asset="a", version="v", fingerprint="f", synthetic=True, created_at=datetime.now(UTC)
        ),
        "onnx",
    )
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*metric._labelnames)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def parse(expression: str) -> Expr:
    """The syntax tree; Grafana's only variable here stands for a duration.

    Raises:
        ValueError: it is not PromQL.
    """
    return promql_parser.parse(expression.replace("$__rate_interval", "1m"))


def selectors(expression: Expr) -> list[VectorSelector]:
    found: list[VectorSelector] = []

    def visit(node: Expr) -> None:
        if isinstance(node, MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, VectorSelector):
            found.append(node)

    promql_parser.walk(expression, visit)
    return found


def unknown(expression: str, legend: str, exposed: dict[str, set[str]]) -> set[str]:
    """Names of series and labels in the expression or the legend that nothing has."""
    known = exposed | OWN
    tree = parse(expression)
    wrong: set[str] = set()
    labels = set(TARGET)
    for selector in selectors(tree):
        if selector.name not in known:
            wrong.add(str(selector.name))
            continue
        labels |= known[selector.name]
        wrong |= {matcher.name for matcher in selector.matchers.matchers} - (
            known[selector.name] | TARGET
        )

    def visit(node: Expr) -> None:
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            below = set.union(
                TARGET, *(known.get(str(s.name), set()) for s in selectors(node.expr))
            )
            wrong.update(set(node.modifier.labels) - below)
        elif isinstance(node, BinaryExpr) and node.modifier and node.modifier.matching:
            wrong.update(set(node.modifier.matching.labels) - labels)

    promql_parser.walk(tree, visit)
    grouped = tree.modifier.labels if isinstance(tree, AggregateExpr) and tree.modifier else labels
    return wrong | (set(re.findall(r"\{\{(\w+)\}\}", legend)) - set(grouped))


@pytest.mark.parametrize(
    ("expression", "legend"),
    [expression[1:] for expression in EXPRESSIONS],
    ids=[expression[0] for expression in EXPRESSIONS],
)
def test_expression_names_only_what_the_service_exposes(
    expression: str, legend: str, exposed: dict[str, set[str]]
) -> None:
    assert unknown(expression, legend, exposed) == set()


@pytest.mark.parametrize(
    ("expression", "legend", "wrong"),
    [
        ("cxr_model_redy == 0", "", {"cxr_model_redy"}),
        ('cxr_requests_total{code="500"}', "", {"code"}),
        ("sum by (status) (rate(cxr_queue_seconds_bucket[$__rate_interval]))", "", {"status"}),
        ("cxr_drift_psi > 1 and on (asset) cxr_drift_images > 9", "", {"asset"}),
        ("sum by (status) (cxr_requests_total)", "{{route}}", {"route"}),
    ],
)
def test_a_wrong_name_is_found(
    expression: str, legend: str, wrong: set[str], exposed: dict[str, set[str]]
) -> None:
    assert unknown(expression, legend, exposed) == wrong


def test_an_expression_that_is_not_promql_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        parse("sum by (le (cxr_confidence_bucket)")


def test_values_of_labels_exist() -> None:
    rejections = Metrics().render().decode()
    values = {
        "route": set(create_app(Settings()).openapi()["paths"]),
        "reason": set(re.findall(r'cxr_rejections_total\{reason="(\w+)"\}', rejections)),
        "job": {JOB["job_name"]},
        "status": {"200", "503"},
        "alertstate": {"firing"},
    }
    used = {
        (matcher.name, matcher.value)
        for _, expression, _ in EXPRESSIONS
        for selector in selectors(parse(expression))
        for matcher in selector.matchers.matchers
    }
    assert {name for name, _ in used} == set(values)
    for name, value in used:
        for part in value.split("|"):
            assert any(re.fullmatch(part, known) for known in values[name]), (name, part)


def test_every_metric_of_the_service_is_looked_at(exposed: dict[str, set[str]]) -> None:
    def family(name: str) -> str:
        return re.sub(r"_(total|bucket|count|sum|created)$", "", name)

    used = {
        family(str(selector.name))
        for _, expression, _ in EXPRESSIONS
        for selector in selectors(parse(expression))
    }
    assert {family(name) for name in exposed if name.startswith("cxr_")} - used == set()


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"\d+[mhd]", rule["for"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"].split()) > 15


def test_buckets_reach_beyond_the_latency_that_alerts(exposed: dict[str, set[str]]) -> None:
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


def test_dashboard_says_first_what_it_is_not_for() -> None:
    first = min(DASHBOARD["panels"], key=lambda panel: panel["gridPos"]["y"])
    assert "Not a medical device" in first["options"]["content"]
    assert "not a medical device" in DASHBOARD["title"]


def test_panels_have_places_of_their_own() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len(PANELS) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("title", [title for title in PANELS if title])
def test_panel_can_be_understood(title: str) -> None:
    panel = PANELS[title]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["description"]
    references = [target["refId"] for target in panel["targets"]]
    assert references
    assert len(references) == len(set(references))


def test_dashboard_asks_the_provisioned_data_source() -> None:
    def uids(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "datasource" in value:
                assert value["datasource"]["type"] == DATASOURCE["type"]
                yield value["datasource"]["uid"]
            value = list(value.values())
        if isinstance(value, list):
            yield from itertools.chain.from_iterable(map(uids, value))

    found = list(uids(DASHBOARD))
    assert len(found) > len(PANELS)
    assert set(found) == {DATASOURCE["uid"]}


def test_thresholds_of_the_dashboard_are_those_of_the_alerts() -> None:
    def last(title: str) -> float:
        value = PANELS[title]["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
        assert isinstance(value, int | float)
        return value

    def limit(alert: str, pattern: str) -> float:
        [found] = re.findall(pattern, ALERTS[alert]["expr"])
        return float(found)

    assert last("Share of requests that fail") == limit("RequestsFail", r"> ([\d.]+)$")
    assert last("Latency") == limit("PredictionsSlow", r"> ([\d.]+)$")
    assert last("Drift") == limit("ImagesDrift", r"> ([\d.]+)")
    assert last("Age") == 24 * 3600 * limit("ModelOld", r"> (\d+) \* 24 \* 3600")


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where the files of this repository are in the container; all of them read-only."""
    found = {}
    for mount in service["volumes"]:
        source, target, *mode = mount.split(":")
        if source.startswith("."):
            assert mode == ["ro"]
            found[source] = target
    return found


def test_prometheus_finds_its_files(services: dict[str, dict[str, Any]]) -> None:
    inside = mounts(services["prometheus"])
    configuration = inside["./deploy/prometheus.yml"]
    assert f"--config.file={configuration}" in services["prometheus"]["command"]
    [rules] = PROMETHEUS["rule_files"]
    assert inside["./deploy/alerts.yml"] == str(PurePosixPath(configuration).parent / rules)


def test_prometheus_keeps_its_samples_on_a_volume(services: dict[str, dict[str, Any]]) -> None:
    assert "prometheus:/prometheus" in services["prometheus"]["volumes"]
    assert "--storage.tsdb.path=/prometheus" in services["prometheus"]["command"]


def test_prometheus_asks_the_service(services: dict[str, dict[str, Any]]) -> None:
    [target] = JOB["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert port == services[host]["environment"]["CXR_PORT"]


def test_grafana_asks_prometheus(services: dict[str, dict[str, Any]]) -> None:
    url = urlsplit(DATASOURCE["url"])
    [published] = services[str(url.hostname)]["ports"]
    assert published.split(":")[-1] == str(url.port)
    # A rate over less than a few scrapes is empty.
    assert DATASOURCE["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]


def test_grafana_finds_its_files(services: dict[str, dict[str, Any]]) -> None:
    inside = mounts(services["grafana"])
    dashboard = inside["./deploy/grafana/dashboard.json"]
    environment = services["grafana"]["environment"]
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == dashboard
    [provider] = yaml.safe_load((ROOT / "deploy" / "grafana" / "dashboards.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == str(PurePosixPath(dashboard).parent)
    for file, directory in (("datasources", "datasources"), ("dashboards", "dashboards")):
        place = PurePosixPath(inside[f"./deploy/grafana/{file}.yml"])
        assert str(place.parent) == f"/etc/grafana/provisioning/{directory}"


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_monitoring_runs_only_when_asked_for(
    name: str, services: dict[str, dict[str, Any]]
) -> None:
    assert services[name]["profiles"] == ["monitoring"]
    waiting = {
        other
        for other, service in services.items()
        if name in service.get("depends_on", {}) and "profiles" not in service
    }
    assert waiting == set()


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_monitoring_is_pinned_and_writes_nowhere_else(
    name: str, services: dict[str, dict[str, Any]]
) -> None:
    assert re.fullmatch(r"\w+/\w+:v?\d+\.\d+\.\d+", services[name]["image"])
    assert services[name]["read_only"] is True


def test_grafana_has_no_user_to_log_in_as(services: dict[str, dict[str, Any]]) -> None:
    environment = services["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert "GF_AUTH_ANONYMOUS_ORG_ROLE" not in environment  # Viewer
