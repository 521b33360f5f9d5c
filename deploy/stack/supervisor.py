"""Starts containers in the order of their dependencies, watches their health, restarts them."""

import threading
import time
from collections.abc import Callable, Mapping

from deploy.stack.composition import Composition, Condition, Healthcheck
from deploy.stack.container import Container

# Docker's: doubled with each restart, and the first again after ten seconds of running.
_FIRST_DELAY = 0.1
_LAST_DELAY = 60.0
_SETTLED_SECONDS = 10


class Unhealthy(Exception):
    """A service did not become what was waited for."""


class Supervised:
    """A service's container, its state and its threads.

    Attributes:
        container: that runs.
        restarts: how often the policy has started it again.
        healthy: what its health check said last; without a check, whether it runs.
        status: of the last end, or None.
        failure: what its health check said when it failed last.
    """

    def __init__(self, container: Container, policy: str, check: Healthcheck | None) -> None:
        self.container = container
        self.restarts = 0
        self.healthy = False
        self.status: int | None = None
        self.failure: str | None = None
        self._policy = policy
        self._check = check
        self._stopping = threading.Event()
        self._changed = threading.Event()  # it is being stopped, or has been started again
        self._threads: list[threading.Thread] = []

    def holds(self, condition: Condition) -> bool:
        """Whether a dependency on it is fulfilled."""
        if condition == "service_completed_successfully":
            return self.status == 0
        return self.healthy if condition == "service_healthy" else bool(self._threads)

    def start(self) -> None:
        """Start it and follow it; again, once it has been stopped."""
        self._stopping.clear()
        self._changed.clear()
        self.healthy, self.status, self.failure = False, None, None
        self.container.start()
        self._threads = [threading.Thread(target=self._follow, daemon=True)]
        if self._check is not None:
            self._threads.append(
                threading.Thread(target=self._check_health, args=(self._check,), daemon=True)
            )
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether it has started, and neither ended for good nor been stopped."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> bool:
        """Stop it; whether it ended within its grace period."""
        self._stopping.set()
        self._changed.set()
        by_itself = True
        # More than once, if the policy was just starting it again.
        while self.running:
            by_itself = self.container.stop() and by_itself
            for thread in self._threads:
                thread.join(0.1)
        self._threads = []
        self.container.remove()
        return by_itself

    def _follow(self) -> None:
        delay = _FIRST_DELAY
        while True:
            started = time.monotonic()
            self.healthy = self._check is None
            self.status = self.container.wait()
            self.healthy = False
            if self._stopping.is_set() or self._policy == "no":
                return
            if time.monotonic() - started > _SETTLED_SECONDS:
                delay = _FIRST_DELAY
            if self._stopping.wait(delay):
                return
            delay = min(2 * delay, _LAST_DELAY)
            self.restarts += 1
            self.container.start()
            self._changed.set()

    def _check_health(self, check: Healthcheck) -> None:
        failures, started = 0, time.monotonic()
        while True:
            starting = not self.healthy and time.monotonic() - started < check.start_period
            if not self._changed.wait(check.start_interval if starting else check.interval):
                status, said = self.container.run(check.command, check.timeout)
            if self._changed.is_set():
                self._changed.clear()
                if self._stopping.is_set():
                    return
                failures, started = 0, time.monotonic()  # Docker, too, begins anew
                continue
            if status == 0:
                failures, self.healthy, self.failure = 0, True, None
                continue
            self.failure = said.strip()[-500:]
            failures += not starting
            if failures >= check.retries:
                self.healthy = False


class Supervisor:
    """All services that run.

    Args:
        composition: what docker-compose.yml says.
        containers: of the services that run, by name.
        report: takes a line on what happens.
    """

    def __init__(
        self,
        composition: Composition,
        containers: Mapping[str, Container],
        report: Callable[[str], None],
    ) -> None:
        self._composition = composition
        self._report = report
        self.services = {
            name: Supervised(container, service.restart, service.healthcheck)
            for name, container in containers.items()
            for service in [composition.services[name]]
        }

    def start(self, seconds: float, *names: str) -> None:
        """Start each service once its dependencies hold, and wait until all are as they should be.

        Args:
            seconds: after which it is given up.
            names: of services that need no others than these; without names, all.

        Raises:
            Unhealthy: one is not, after so many seconds.
        """
        started = time.monotonic()
        pending = dict.fromkeys(names or self.services)
        waiting = {name: None for name in pending if not self.services[name].running}
        while waiting or pending:
            for name in list(waiting):
                needs = self._composition.services[name].depends_on
                if all(self.services[on].holds(need.condition) for on, need in needs.items()):
                    self.services[name].start()
                    del waiting[name]
            for name in [name for name in pending if name not in waiting]:
                if self._is_up(name):
                    self._report(f"{name} is up after {time.monotonic() - started:.0f} s")
                    del pending[name]
            if time.monotonic() - started > seconds:
                problems = ", ".join(f"{name} ({self.services[name].failure})" for name in pending)
                raise Unhealthy(f"not up after {seconds:g} s: {problems}")
            time.sleep(0.1)

    def _is_up(self, name: str) -> bool:
        if any(
            need.condition == "service_completed_successfully"
            for service in self._composition.services.values()
            for other, need in service.depends_on.items()
            if other == name
        ):
            return self.services[name].holds("service_completed_successfully")
        return self.services[name].healthy

    def stop(self) -> list[str]:
        """Stop all, those that depend on others first; the names of those that had to be killed."""
        killed = []
        left = list(self.services)
        while left:
            needed = {on for name in left for on in self._composition.services[name].depends_on}
            for name in [name for name in left if name not in needed]:
                left.remove(name)
                started = time.monotonic()
                if not self.services[name].stop():
                    killed.append(name)
                self._report(f"{name} has ended after {time.monotonic() - started:.1f} s")
        return killed
