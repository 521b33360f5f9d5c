"""Overrides as a user types them: quoted as in a shell, values as in Hydra, paths verbatim."""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

EXAMPLE = "CXR_OVERRIDES=\"seed=7 data.folder='/data/my images (2024)'\""
# Keys whose values may be paths. Hydra's grammar requires parentheses, commas, braces and non-ASCII
# letters to be escaped.
PLACES = ("data.folder", "data.table", "data.corrections")
PATHS = (*PLACES, "model.pretrained", "probe.pretrained")

# Such as a class or a repository: neither a number nor a word that YAML reads otherwise.
_PLAIN = re.compile(r"(?!(?:true|false|null|inf|nan)$)[a-z_][a-z0-9_./@-]*", re.IGNORECASE)
_FUNCTION = re.compile(r"(choice|glob|shuffle|sort|tag)\(.*\)")


class ExperimentError(ValueError):
    """The preset or an override is invalid; the message names it and a valid one."""


def split(text: str) -> list[str]:
    """The overrides in ``CXR_OVERRIDES`` or the launchpad, quoted as in a POSIX shell.

    Raises:
        ExperimentError: a quotation mark is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ExperimentError(
            f"the overrides {text!r} cannot be read ({error}): quote as in a shell, as in {EXAMPLE}"
        ) from error


def without_places(overrides: Sequence[str]) -> list[str]:
    """Overrides but those that name a folder or a table of this machine: such may name people."""
    return [
        override
        for override in overrides
        if override.partition("=")[0].lstrip("+") not in (*PLACES, "data.sources")
    ]


def join(overrides: Sequence[str]) -> str:
    """The inverse of :func:`split`; quotes only what needs it."""
    return " ".join(
        shlex.quote(override) if re.search(r"[\s\\'\"]", override) or not override else override
        for override in overrides
    )


def for_hydra(override: str, sweep: bool = False) -> str:
    """An override in Hydra's grammar.

    Paths, and values that Hydra's grammar rejects, become quoted strings. A value that is already
    quoted for Hydra, and ``null``, are returned unchanged.

    Args:
        override: ``key=value``, no longer quoted for a shell.
        sweep: whether a comma separates the values of a sweep, also in paths.
    """
    key, equals, value = override.partition("=")
    try:
        OverridesParser.create().parse_override(override)
        valid = True
    except HydraException:
        valid = False
    if not equals or value in ("", "null") or (valid and value[0] in "'\""):
        return override
    if key.lstrip("+") in PATHS:
        if sweep and _FUNCTION.fullmatch(value):
            return override
        paths = value.split(",") if sweep else [value]
        return f"{key}={','.join(map(_quoted, paths))}"
    return override if valid else f"{key}={_quoted(value)}"


def literal(value: Any) -> str:
    """A value of JSON in Hydra's grammar."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{_key(key)}:{literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else _quoted(value)
    return json.dumps(value)


def _key(text: str) -> str:
    """``text`` as the key of a dictionary, where Hydra's grammar knows no quotation marks."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", text)


def _quoted(text: str) -> str:
    """``text`` as a quoted string of Hydra's grammar, without interpolation.

    Backslashes before a quotation mark or ``${`` are doubled, because they would escape it.
    """
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    escaped = re.sub(r"(\\*)('|$)", lambda run: run[1] * 2 + run[2].replace("'", r"\'"), literal)
    return f"'{escaped}'"
