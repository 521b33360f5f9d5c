"""dagster-ray's client with limits: a head node that is frozen keeps its connections, silently."""

from functools import partial
from typing import Any

from dagster_ray import PipesRayJobClient
from dagster_ray.core.pipes import PipesRayJobMessageReader
from ray.exceptions import AuthenticationError
from requests import RequestException

# What Ray's client raises when the cluster rejects a request, or does not answer it.
ERRORS = (AuthenticationError, ConnectionError, RequestException, RuntimeError)

# Seconds in which a request is answered.
_ANSWERS = 30
# Seconds in which the last lines of a job that has ended, or is lost, arrive.
_LINES = 10


class _Reader(PipesRayJobMessageReader):
    def terminate(self, handler: Any) -> None:
        self.session_closed.set()
        if self._thread is not None:
            self._thread.join(_LINES)


def client(address: str | None) -> PipesRayJobClient:
    """What submits jobs and waits for them.

    Args:
        address: of the dashboard.
    """
    made = PipesRayJobClient(address, message_reader=_Reader())
    made.client._do_request = partial(made.client._do_request, timeout=_ANSWERS)
    return made


def ray_version(client: PipesRayJobClient) -> str:
    """Of the cluster."""
    return str(client.client._do_request("GET", "/api/version").json()["ray_version"])
