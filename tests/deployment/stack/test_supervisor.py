"""Order, health and restarts, with a stand-in for containers."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from deploy.stack.composition import Composition
from deploy.stack.supervisor import Supervisor, Unhealthy


class Stand:
    """A container that ends when a test says so."""

    def __init__(self, name: str, events: list[str], ends: int | None = None) -> None:
        self._name = name
        self._events = events
        self._ends = ends
        self.over = threading.Event()
        self.answer = (0, "")

    def start(self) -> None:
        self._events.append(f"start {self._name}")
        self.over.clear()
        if self._ends is not None:
            self.over.set()

    def wait(self) -> int:
        self.over.wait()
        return self._ends or 0

    def run(self, command: Any, timeout: float) -> tuple[int, str]:
        return self.answer

    def stop(self) -> bool:
        self._events.append(f"stop {self._name}")
        self.over.set()
        return True

    def remove(self) -> None:
        pass


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


CHECK = {"test": ["CMD", "true"], "interval": "10ms", "start_interval": "10ms", "retries": 2}


def described(**services: dict[str, Any]) -> Composition:
    return Composition.model_validate(
        {
            "name": "cxr",
            "services": {name: {"image": "one:1", **one} for name, one in services.items()},
        }
    )


def after(name: str, condition: str = "service_healthy") -> dict[str, Any]:
    return {name: {"condition": condition}}


def test_services_start_after_what_they_need_and_stop_before_it() -> None:
    events: list[str] = []
    composition = described(
        web={"healthcheck": CHECK, "depends_on": after("database")},
        database={
            "healthcheck": CHECK,
            "depends_on": after("folders", "service_completed_successfully"),
        },
        folders={},
    )
    stands = {name: Stand(name, events, 0 if name == "folders" else None) for name in
              composition.services}  # fmt: skip
    supervisor = Supervisor(composition, stands, lambda _: None)  # type: ignore[arg-type]
    supervisor.start(20)
    assert supervisor.stop() == []
    # On a busy machine one may be asked to stop twice.
    assert list(dict.fromkeys(events)) == [
        *("start folders", "start database", "start web"),
        *("stop web", "stop database"),
    ]


def test_some_services_start_without_the_others_and_all_start_again_after_a_stop() -> None:
    events: list[str] = []
    composition = described(
        web={"depends_on": after("database")}, database={"healthcheck": CHECK}, folders={}
    )
    stands = {name: Stand(name, events) for name in composition.services}
    supervisor = Supervisor(composition, stands, lambda _: None)  # type: ignore[arg-type]
    supervisor.start(20, "database")
    assert events == ["start database"]
    supervisor.start(20)
    assert sorted(events[1:]) == ["start folders", "start web"]
    assert supervisor.stop() == []
    events.clear()
    supervisor.start(20)
    assert sorted(events) == ["start database", "start folders", "start web"]
    supervisor.stop()


def test_what_does_not_become_healthy_is_named_with_what_its_check_said() -> None:
    composition = described(web={"healthcheck": CHECK})
    stand = Stand("web", [])
    stand.answer = (1, "no route")
    supervisor = Supervisor(composition, {"web": stand}, lambda _: None)  # type: ignore[dict-item]
    with pytest.raises(Unhealthy, match=r"web \(no route\)"):
        supervisor.start(0.5)
    supervisor.stop()


@pytest.mark.parametrize(("policy", "restarts"), [("unless-stopped", 1), ("no", 0)])
def test_what_ends_is_started_again_if_the_policy_says_so(policy: str, restarts: int) -> None:
    composition = described(web={"healthcheck": CHECK, "restart": policy})
    stand = Stand("web", [])
    supervisor = Supervisor(composition, {"web": stand}, lambda _: None)  # type: ignore[dict-item]
    supervisor.start(20)
    service = supervisor.services["web"]
    stand.answer = (1, "")
    stand.over.set()
    until(lambda: not service.healthy and service.restarts == restarts)
    if restarts:
        stand.answer = (0, "")
        until(lambda: service.healthy)
    supervisor.stop()
    assert service.restarts == restarts


def test_what_was_started_again_is_asked_as_often_as_at_its_first_start() -> None:
    check = {**CHECK, "interval": "1h", "start_period": "1h"}
    composition = described(web={"healthcheck": check, "restart": "unless-stopped"})
    stand = Stand("web", [])
    supervisor = Supervisor(composition, {"web": stand}, lambda _: None)  # type: ignore[dict-item]
    supervisor.start(20)
    service = supervisor.services["web"]
    stand.over.set()
    until(lambda: service.restarts == 1 and service.healthy)
    supervisor.stop()
