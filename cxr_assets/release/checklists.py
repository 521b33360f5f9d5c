"""CLAIM and TRIPOD+AI, answered from what the run knows."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

NOT_REPORTED = "not reported: the program that wrote this card does not know it"

_TEMPLATES = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - Markdown


def checklist(name: str, **known: Any) -> list[tuple[str, str, str]]:
    """Each item of a checklist: its number, what it asks for, and the answer or where it is.

    Args:
        name: ``claim`` or ``tripod``; the items are in ``<name>.yaml`` beside this module.
        known: what the answers may name.
    """
    content = Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
    return [
        (
            item["item"],
            item["asks"],
            _TEMPLATES.from_string(item.get("answer", "")).render(known) or NOT_REPORTED,
        )
        for item in yaml.safe_load(content)
    ]
