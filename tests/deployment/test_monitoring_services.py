"""Prometheus and Grafana as services of docker-compose.yml."""

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from monitoring import DATASOURCE, JOB, PROMETHEUS, ROOT


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
