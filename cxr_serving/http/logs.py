"""Logs as JSON, one object per line, on standard error."""

import logging

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

_FIELDS = ("asctime", "levelname", "name", "message")


def install() -> None:
    """Send all logs there, including uvicorn's and Python's warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            _FIELDS,
            style=",",
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            # uvicorn repeats its messages in colours.
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
