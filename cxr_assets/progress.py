"""How a long step reports what it is doing."""

from collections.abc import Callable

Progress = Callable[[str], None]
"""Called with a line of text at a time: ``print``, or the ``info`` of a logger."""
