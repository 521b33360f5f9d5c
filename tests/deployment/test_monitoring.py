"""Alerts and panels ask for what the service exposes."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import promql_parser
import pytest
from monitoring import ALERTS, DASHBOARD, JOB
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, BinaryExpr, Expr, MatrixSelector, VectorSelector

from cxr_serving.http.app import create_app
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.settings import Settings
from cxr_serving.model.bundle import BundleRecord

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
    rendered = Metrics().render().decode()
    values = {
        "route": set(create_app(Settings()).openapi()["paths"]),
        "reason": set(re.findall(r'cxr_rejections_total\{reason="(\w+)"\}', rendered)),
        "accepted": set(re.findall(r'\{accepted="(\w+)"\}', rendered)),
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
