"""What happens before a request is read: its key is checked, then its body is bounded."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

from cxr_serving.http.errors import ServiceError


def guarded(
    admit: Callable[[Request], Awaitable[None]], max_bytes: int, seconds: float
) -> type[APIRoute]:
    """Make the class of the routes that only those may use whom ``admit`` lets through.

    FastAPI reads a body that a route declares before it runs the route's dependencies; here no byte
    of a body is read, and no ``100 Continue`` sent, before ``admit`` has returned.

    Args:
        admit: raises a ServiceError for a request that is not answered.
        max_bytes: of a body, which is counted as it arrives, whatever its headers say.
        seconds: from the head of a request to the end of its body.

    Returns:
        For ``APIRouter(route_class=…)``. What reads the body raises ServiceError: 413 when it is
        larger, 408 when it is slower.
    """

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def answer_admitted(request: Request) -> Response:
                await admit(request)
                bounded = Request(request.scope, _bounded(request, max_bytes, seconds))
                if self.body_field is not None:
                    await bounded.body()  # FastAPI would answer what this raises with a 400
                return await answer(bounded)

            return answer_admitted

    return GuardedRoute


def _bounded(request: Request, max_bytes: int, seconds: float) -> Receive:
    deadline = request.state.started + seconds
    declared = request.headers.get("content-length", "")
    received = 0
    complete = False

    async def receive() -> Message:
        nonlocal received, complete
        if complete:  # what is left to come is that the client leaves
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
        f"the body of the request is larger than {max_bytes:,} bytes, the most accepted "
        "here: send less at once",
    )
