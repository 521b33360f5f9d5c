"""The files of Prometheus and Grafana, as they are deployed."""

import json
import shutil
from pathlib import Path

import yaml

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
