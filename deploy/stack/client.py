"""A client of the running stack: of Dagster, MLflow, the service and Prometheus."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from deploy.stack.supervisor import Supervisor

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
_STATUS = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_EVENTS = """
query Events($id: ID!) {
  runOrError(runId: $id) {
    ... on Run {
      eventConnection(limit: 1000) { events { __typename ... on MessageEvent { message } } }
    }
  }
}
"""
_RETRIES = """
query Retries($id: String!) {
  runsOrError(filter: {tags: [{key: "dagster/parent_run_id", value: $id}]}) {
    ... on Runs { results { runId } }
  }
}
"""
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class Stack:
    """A client of all services.

    Args:
        supervisor: of the services, which have started.
        report: takes a line on what is seen.
        patience: how many times longer than on an idle machine it may take.
    """

    def __init__(
        self, supervisor: Supervisor, report: Callable[[str], None], patience: float
    ) -> None:
        self.containers = {name: service.container for name, service in supervisor.services.items()}
        self.report = report
        self.patience = patience
        self._services = supervisor.services
        self._client = httpx.Client(timeout=60 * patience, trust_env=False)

    def launch(self, *overrides: str) -> str:
        """Launch a retraining through the webserver; the id of its run.

        Args:
            overrides: of the experiment, in place of those in the environment.
        """
        resources = {"experiment": {"config": {"overrides": " ".join(overrides)}}}
        params = {
            "selector": {
                "repositoryLocationName": "cxr",
                "repositoryName": "__repository__",
                "jobName": "retrain",
            },
            "mode": "default",
            "runConfigData": json.dumps({"resources": resources} if overrides else {}),
        }
        result = self._graphql(_LAUNCH, params=params)["launchRun"]
        assert result["__typename"] == "LaunchRunSuccess", result
        run: str = result["run"]["runId"]
        return run

    def status(self, run: str) -> str:
        """Of a run in Dagster, such as STARTED."""
        found: str = self._graphql(_STATUS, id=run)["runOrError"]["status"]
        return found

    def retries(self, run: str) -> list[str]:
        """The runs that repeat a run."""
        found = self._graphql(_RETRIES, id=run)["runsOrError"]["results"]
        return [one["runId"] for one in found]

    def events(self, run: str) -> list[dict[str, str]]:
        """Of a run: the kind (``__typename``) and, where it has one, the message."""
        found = self._graphql(_EVENTS, id=run)["runOrError"]
        events: list[dict[str, str]] = found["eventConnection"]["events"]
        return events

    def tracked(self, run: str) -> dict[str, str]:
        """Status in MLflow, by name, of the run of a Dagster run and of those within it."""
        return {one["info"]["run_name"]: one["info"]["status"] for one in self._tracked(run)}

    def metrics(self, run: str) -> dict[str, dict[str, float]]:
        """The last value of each metric in MLflow, by the name of its run; runs as in `tracked`."""
        return {
            one["info"]["run_name"]: {
                metric["key"]: metric["value"] for metric in one["data"].get("metrics", [])
            }
            for one in self._tracked(run)
        }

    def _tracked(self, run: str) -> list[dict[str, Any]]:
        api = "http://mlflow:5000/api/2.0/mlflow"
        name = {"experiment_name": "cxr-retraining"}
        found = self._client.get(f"{api}/experiments/get-by-name", params=name).json()
        if "experiment" not in found:
            return []
        experiment = found["experiment"]["experiment_id"]
        all_runs = self._client.post(
            f"{api}/runs/search", json={"experiment_ids": [experiment], "max_results": 1000}
        ).json()["runs"]
        tags = {
            one["info"]["run_id"]: {tag["value"] for tag in one["data"].get("tags", [])}
            for one in all_runs
        }
        parents = {identity for identity, values in tags.items() if run in values}
        return [
            one
            for one in all_runs
            for identity in [one["info"]["run_id"]]
            if identity in parents or tags[identity] & parents
        ]

    def model(self) -> str | None:
        """The version that serves, or None."""
        try:
            answer = self._client.get("http://serving:8000/model")
        except httpx.TransportError:
            return None
        return str(answer.json()["model"]["version"]) if answer.status_code == 200 else None

    def alert(self, name: str) -> str | None:
        """The state of an alert: pending, firing, or None."""
        alerts = self._client.get("http://prometheus:9090/api/v1/alerts").json()["data"]["alerts"]
        states = [one["state"] for one in alerts if one["labels"]["alertname"] == name]
        return states[0] if states else None

    def value(self, metric: str) -> str | None:
        """What Prometheus read last."""
        found = self._client.get(
            "http://prometheus:9090/api/v1/query", params={"query": metric}
        ).json()["data"]["result"]
        return found[0]["value"][1] if found else None

    def kill(self, name: str, after: Callable[[], object] = lambda: None) -> None:
        """Kill a service by SIGKILL, and see it come back healthy.

        Args:
            name: of the service.
            after: called once it is killed, before it is restarted.

        Raises:
            TimeoutError: it does not come back.
        """
        restarts = self._services[name].restarts
        self._services[name].container.kill()
        after()
        self._comes_back(name, restarts)

    def restart(self, name: str, after: Callable[[], object]) -> None:
        """Stop a service as ``docker restart`` does, and see it come back healthy.

        Args:
            name: of the service.
            after: called once it has ended.

        Raises:
            AssertionError: it did not end within its grace period, and was killed.
            TimeoutError: it does not come back.
        """
        restarts, started = self._services[name].restarts, time.monotonic()
        assert self._services[name].container.stop(), f"{name} had to be killed"
        self.report(f"{name} has ended {time.monotonic() - started:.1f} s after SIGTERM")
        after()
        self._comes_back(name, restarts)

    def _comes_back(self, name: str, restarts: int) -> None:
        service = self._services[name]
        self.until(lambda: service.restarts > restarts, 60, f"{name} is restarted")
        self.until(lambda: service.healthy, 240, f"{name} is healthy again")

    def until(self, true: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait until something holds, and report it.

        Args:
            true: whether it does; while a service does not answer, it does not.
            seconds: how long it may take on an idle machine.
            what: for the report.

        Returns:
            The seconds that it took.

        Raises:
            TimeoutError: it does not hold in time.
        """
        started = time.monotonic()
        while not self._holds(true):
            if time.monotonic() - started > self.patience * seconds:
                raise TimeoutError(f"not within {seconds:g} s: {what}")
            time.sleep(1)
        took = time.monotonic() - started
        self.report(f"{what}: {took:.1f} s")
        return took

    @staticmethod
    def _holds(true: Callable[[], bool]) -> bool:
        try:
            return true()
        except httpx.HTTPError:
            return False

    def _graphql(self, query: str, **variables: Any) -> Any:
        answer = self._client.post(
            "http://webserver:3000/graphql", json={"query": query, "variables": variables}
        )
        answer.raise_for_status()
        content = answer.json()
        assert "errors" not in content, content
        return content["data"]
