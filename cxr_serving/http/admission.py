"""What happens before a request is read: its key is checked, then its body is bounded."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

from cxr_serving.http.errors import ServiceError
from cxr_serving.http.service import Service

_ADMIN_BYTES = 2**16  # of a request body that names a version


class GuardedRoute(APIRoute):
    """A route that checks a request before it reads a byte of its body.

    FastAPI reads a body that a route declares before it runs the route's dependencies; here no byte
    of a body is read, and no ``100 Continue`` sent, before :meth:`admit` has returned. The deadline
    of the service runs from the head of a request to the end of its body. What reads the body
    raises ServiceError: 413 when it is larger than :meth:`max_bytes`, counted as it arrives and
    whatever its headers say; 408 when it is slower.
    """

    @staticmethod
    @abstractmethod
    async def admit(service: Service, request: Request) -> None:
        """Raise a ServiceError for a request that must not be answered."""

    @staticmethod
    @abstractmethod
    def max_bytes(service: Service) -> int:
        """The largest body that is accepted, in bytes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        answer = super().get_route_handler()

        async def answer_admitted(request: Request) -> Response:
            service: Service = request.app.state.service
            await self.admit(service, request)
            receive = _bounded(request, self.max_bytes(service), service.settings.deadline_seconds)
            bounded = Request(request.scope, receive)
            if self.body_field is not None:
                await bounded.body()  # FastAPI would answer what this raises with a 400
            return await answer(bounded)

        return answer_admitted


class UserRoute(GuardedRoute):
    """For everyone with a key, where keys are set, within the rate limit."""

    @staticmethod
    async def admit(service: Service, request: Request) -> None:
        """Check key and rate limit."""
        await service.guard.user(request)

    @staticmethod
    def max_bytes(service: Service) -> int:
        """``CXR_MAX_UPLOAD_BYTES``."""
        return service.settings.max_upload_bytes


class AdminRoute(GuardedRoute):
    """For those who may choose which model serves."""

    @staticmethod
    async def admit(service: Service, request: Request) -> None:
        """Check the admin key."""
        await service.guard.admin(request)

    @staticmethod
    def max_bytes(service: Service) -> int:
        """The same in every service."""
        return _ADMIN_BYTES


def _bounded(request: Request, max_bytes: int, seconds: float) -> Receive:
    deadline = request.state.started + seconds
    declared = request.headers.get("content-length", "")
    received = 0
    complete = False

    async def receive() -> Message:
        nonlocal received, complete
        if complete:  # the only message that can still arrive is that the client has left
            return await request.receive()
        if declared.isdecimal() and int(declared) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                message = await request.receive()
        except TimeoutError as error:
            raise ServiceError(
                408,
                "upload_too_slow",
                f"the request took longer than {seconds:g} s to arrive: send less, or over a "
                "faster connection",
            ) from error
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise _too_large(max_bytes)
        complete = not message.get("more_body", False)
        return message

    return receive


def _too_large(max_bytes: int) -> ServiceError:
    return ServiceError(
        413,
        "upload_too_large",
        f"the request body is larger than {max_bytes:,} bytes, the most that is accepted here: "
        "send less at once",
    )
