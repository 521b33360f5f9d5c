"""A retraining on the running stack, from an alert before the first model to a killed process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from deploy.stack.client import ENDED, Stack
from deploy.stack.load import Load

# Fires when the service has had no model for two minutes, as before the first retraining.
_ALERT = "ServiceNotReady"
Phase = Callable[[str], AbstractContextManager[None]]


def follow(stack: Stack, data: Path, overrides: str, phase: Phase) -> str:
    """Do everything once.

    Args:
        stack: which has started.
        data: the data root, as it lies on this machine.
        overrides: of the experiment.
        phase: measures one, by its name.

    Returns:
        The run of Dagster.

    Raises:
        AssertionError: something is not as it should be.
        TimeoutError: it does not become so.
    """
    with phase("the service sees models, releases and metrics alone"):
        _, listed = stack.containers["serving"].run(["ls", "/data"], 30)
        assert listed.split() == ["metrics", "models", "releases"], listed
    with phase("Prometheus scrapes, the alert of a service without a model fires"):
        stack.until(lambda: stack.alert(_ALERT) == "firing", 300, "the alert fires")
    with phase("a retraining, launched through the webserver"):
        run = stack.launch()
        events = _follow(stack, run)
        # Nobody but the daemon starts a run that was queued.
        assert {"RunEnqueuedEvent", "RunStartingEvent"} <= events, events
        stack.report("the run was queued, and taken from the queue by the daemon")
    with phase("MLflow holds the run"):
        tracked = stack.tracked(run)
        assert tracked, "MLflow does not have the run"
        assert set(tracked.values()) == {"FINISHED"}, tracked
        stack.report(f"MLflow has the runs {', '.join(sorted(tracked))}")
    with phase("the service swaps, the alert clears"):
        stack.until(lambda: stack.model() is not None, 60, "the service has a model")
        version = stack.model()
        stack.report(f"the service answers with {version}")
        stack.until(lambda: stack.alert(_ALERT) is None, 120, "the alert clears")
        assert stack.value("cxr_model_ready") == "1"
    with phase("another seed: the service swaps to another model, and answers all requests"):
        image = min(data.glob("raw/**/*.jpeg"))
        with Load(image, 60 * stack.patience) as load:
            _follow(stack, stack.launch(*overrides.split(), "seed=2"))
            stack.until(lambda: stack.model() != version, 60, "another model serves")
            before, version = version, stack.model()
            stack.until(lambda: version in load.answered, 60, "it answers")
        stack.report(f"answers by version: {load.answered}")
        assert not load.failed, load.failed
        assert load.answered.keys() == {before, version}, load.answered
    with phase("the service is killed and comes back with its model"):
        stack.kill("serving")
        stack.until(lambda: stack.model() == version, 120, "the model serves again")
    return run


def _follow(stack: Stack, run: str) -> set[str]:
    """The kinds of its events, once the run has succeeded."""
    seen: list[str] = []

    def ended() -> bool:
        status = stack.status(run)
        if status not in seen:
            seen.append(status)
            stack.report(f"the run is {status}")
        return status in ENDED

    stack.until(ended, 900, "the run ends")
    events = stack.events(run)
    assert seen[-1] == "SUCCESS", [event.get("message") for event in events][-20:]
    return {event["__typename"] for event in events}
