"""Overrides as a user types them: quoted as in a shell, values as in Hydra, paths verbatim."""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

EXAMPLE = "CXR_OVERRIDES=\"seed=7 data.folder='/data/my images (2024)'\""
# Keys whose values may be paths. Hydra's grammar requires parentheses, commas, braces and non-ASCII
# letters to be escaped.
PLACES = ("data.folder", "data.table", "data.corrections")
PATHS = (*PLACES, "model.pretrained", "probe.pretrained")

# What holds words of the user and paths: also what Hydra's grammar cannot say.
WHOLE = ("data.labels", "data.sources")
_WORD = "data.labels."
# Columns of a table may have any name.
_COLUMN = "data.columns."

# Such as a class, a repository or a path: neither a number nor a word that YAML reads otherwise.
_PLAIN = re.compile(r"(?!(?:true|false|null|inf|nan)$)[a-z_/][a-z0-9_./@-]*", re.IGNORECASE)
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
    valid = _is_valid(override)
    if not equals or value in ("", "null") or (valid and value[0] in "'\""):
        return override
    if key == "data.labels":
        return f"++{override}"  # its keys are none of ours
    if key.lstrip("+") in PATHS or key.startswith(_COLUMN):
        if sweep and _FUNCTION.fullmatch(value):
            return override
        paths = value.split(",") if sweep else [value]
        return f"{key}={','.join(map(_quoted, paths))}"
    return override if valid else f"{key}={_quoted(value)}"


def beyond_hydra(override: str) -> bool:
    """Whether :func:`apply` reads an override: a word for a class, or what Hydra cannot read."""
    key, equals, _ = override.lstrip("+").partition("=")
    return bool(equals) and (key.startswith(_WORD) or (key in WHOLE and not _is_valid(override)))


def apply(overrides: Sequence[str], data: dict[str, Any]) -> None:
    """Set labels and sources.

    In ``data.labels.WORD=CLASS`` the word is taken verbatim up to the last equals sign. Otherwise a
    value is YAML, and JSON therefore.

    Args:
        overrides: those that are :func:`beyond_hydra`.
        data: values of the group ``data``; changed in place.

    Raises:
        ExperimentError: one cannot be read.
    """
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key.startswith(_WORD):
            word, _, label = override.lstrip("+").removeprefix(_WORD).rpartition("=")
            if not word.strip():
                raise ExperimentError(f"{override}: expected data.labels.WORD=CLASS")
            label = label.strip("'\"")
            data["labels"] = {**data["labels"], word: None if label == "null" else label}
            continue
        try:
            # Text only: a word such as "no" or "01" stays what it is.
            data[key.removeprefix("data.")] = _with_nulls(yaml.load(value, yaml.BaseLoader))  # noqa: S506 - it makes text only
        except yaml.YAMLError as error:
            example = {
                "data.labels": "'{Viral: viral_pneumonia, \"J15.9\": bacterial_pneumonia}'",
                "data.sources": "'[{name: a, source: table, table: /path/to/a.csv}]'",
            }[key]
            raise ExperimentError(
                f"{override} cannot be read ({' '.join(str(error).split())}): write it as in "
                f"{key}={example}"
            ) from error


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return None if value == "null" else value


def _is_valid(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


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
