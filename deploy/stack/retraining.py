"""What is done to the running stack, and what must come of it."""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx

from deploy.stack import upkeep
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
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
# Fires when the service has had no model for two minutes, as before the first retraining.
_ALERT = "ServiceNotReady"
Phase = Callable[[str], AbstractContextManager[None]]


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
        self._supervisor = supervisor
        self._report = report
        self._patience = patience
        self._client = httpx.Client(timeout=60 * patience, trust_env=False)

    def follow(self, phase: Phase) -> None:
        """Everything, from an alert before the first model to a process that is killed.

        Args:
            phase: measures one, by its name.

        Raises:
            AssertionError: something is not as it should be.
            TimeoutError: it does not become so.
        """
        with phase("the service sees models, releases and reports alone"):
            _, listed = self._supervisor.services["serving"].container.run(["ls", "/data"], 30)
            assert listed.split() == ["models", "releases", "reports"], listed
        with phase("Prometheus scrapes, the alert of a service without a model fires"):
            self._until(lambda: self._alert() == "firing", 300, "the alert fires")
        with phase("a retraining, launched through the webserver"):
            run = self._launch()
            events = self._follow(run)
            # Nobody but the daemon starts a run that was queued.
            assert {"RunEnqueuedEvent", "RunStartingEvent"} <= events, events
            self._report("the run was queued, and taken from the queue by the daemon")
        with phase("MLflow holds the run"):
            self._mlflow(run)
        with phase("the service swaps, the alert clears"):
            self._until(lambda: self._model() is not None, 60, "the service has a model")
            version = self._model()
            self._report(f"the service answers with {version}")
            self._until(lambda: self._alert() is None, 120, "the alert clears")
            assert self._value("cxr_model_ready") == "1"
        containers = {
            name: service.container for name, service in self._supervisor.services.items()
        }
        with phase("backup and restore of Postgres"):
            rows = upkeep.back_up_and_restore(containers, 120 * self._patience)
            self._report(", ".join(f"{n} rows of {database}" for database, n in rows.items()))
        with phase("migrations of Dagster and MLflow"):
            upkeep.migrate(containers, 120 * self._patience)
        with phase("the service is killed and comes back with its model"):
            self._kill("serving")
            self._until(lambda: self._model() == version, 120, "the model serves again")

    def _launch(self) -> str:
        params = {
            "selector": {
                "repositoryLocationName": "cxr",
                "repositoryName": "__repository__",
                "jobName": "retrain",
            },
            "mode": "default",
            "runConfigData": json.dumps({}),
        }
        result = self._graphql(_LAUNCH, params=params)["launchRun"]
        assert result["__typename"] == "LaunchRunSuccess", result
        run: str = result["run"]["runId"]
        return run

    def _follow(self, run: str) -> set[str]:
        """The kinds of its events, once the run has succeeded."""
        seen: list[str] = []

        def ended() -> bool:
            found = self._graphql(_STATUS, id=run)["runOrError"]
            if found["status"] not in seen:
                seen.append(found["status"])
                self._report(f"the run is {found['status']}")
            return found["status"] in _ENDED

        self._until(ended, 900, "the run ends")
        events = self._graphql(_EVENTS, id=run)["runOrError"]["eventConnection"]["events"]
        assert seen[-1] == "SUCCESS", [event.get("message") for event in events][-20:]
        return {event["__typename"] for event in events}

    def _graphql(self, query: str, **variables: Any) -> Any:
        answer = self._client.post(
            "http://webserver:3000/graphql", json={"query": query, "variables": variables}
        ).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def _mlflow(self, run: str) -> None:
        api = "http://mlflow:5000/api/2.0/mlflow"
        name = {"experiment_name": "cxr-retraining"}
        found = self._client.get(f"{api}/experiments/get-by-name", params=name).json()
        experiment = found["experiment"]["experiment_id"]
        runs = self._client.post(
            f"{api}/runs/search", json={"experiment_ids": [experiment]}
        ).json()["runs"]
        assert {one["info"]["status"] for one in runs} == {"FINISHED"}, runs
        [parent] = [
            one for one in runs if run in {tag["value"] for tag in one["data"].get("tags", [])}
        ]
        self._report(f"MLflow has the run {parent['info']['run_id']} and {len(runs) - 1} within")

    def _model(self) -> str | None:
        """The version that serves, or None."""
        try:
            answer = self._client.get("http://serving:8000/model")
        except httpx.TransportError:
            return None
        return str(answer.json()["model"]["version"]) if answer.status_code == 200 else None

    def _alert(self) -> str | None:
        """The state of the alert: pending, firing, or None."""
        alerts = self._client.get("http://prometheus:9090/api/v1/alerts").json()["data"]["alerts"]
        states = [one["state"] for one in alerts if one["labels"]["alertname"] == _ALERT]
        return states[0] if states else None

    def _value(self, metric: str) -> str | None:
        """What Prometheus read last."""
        found = self._client.get(
            "http://prometheus:9090/api/v1/query", params={"query": metric}
        ).json()["data"]["result"]
        return found[0]["value"][1] if found else None

    def _kill(self, name: str) -> None:
        service = self._supervisor.services[name]
        restarts = service.restarts
        service.container.kill()
        self._until(lambda: service.restarts > restarts, 60, f"{name} is restarted")
        self._until(lambda: service.healthy, 240, f"{name} is healthy again")

    def _until(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        started = time.monotonic()
        while not true():
            if time.monotonic() - started > self._patience * seconds:
                raise TimeoutError(f"not within {seconds:g} s: {what}")
            time.sleep(1)
        self._report(f"{what}: {time.monotonic() - started:.1f} s")
