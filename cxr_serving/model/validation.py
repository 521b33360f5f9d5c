"""What pydantic found wrong, as text for a message."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class _Error(Protocol):
    def errors(self) -> Sequence[Any]: ...


def _dotted(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place)) or "contents"


def problems(error: _Error, spelled: Callable[[tuple[int | str, ...]], str] = _dotted) -> list[str]:
    """Place and message of each problem, without the input that pydantic keeps beside them.

    Args:
        error: a ``ValidationError`` of pydantic, or a ``RequestValidationError`` of FastAPI.
        spelled: the place as a user knows it, from the keys and indices that lead to it; joined by
            dots by default, and ``contents`` for the whole.
    """
    return [
        f"{spelled(problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    ]
