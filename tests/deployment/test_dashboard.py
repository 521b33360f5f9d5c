"""Grafana's dashboard."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from monitoring import ALERTS, DASHBOARD, DATASOURCE, PANELS


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
    assert last("Share of images that the gate rejects") == limit("GateRejects", r"> ([\d.]+) ")
    assert last("Age") == 24 * 3600 * limit("ModelOld", r"> (\d+) \* 24 \* 3600")
