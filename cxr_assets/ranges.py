"""Valid ranges of settings, and the messages about values outside them."""

from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from pydantic import BaseModel, ValidationError

_BOUNDS = {
    "exclusiveMinimum": "above {:.12g}",
    "minimum": "at least {:.12g}",
    "exclusiveMaximum": "below {:.12g}",
    "maximum": "at most {:.12g}",
}


def is_repository(name: str) -> bool:
    """Whether ``name`` is a valid repository name on the Hugging Face Hub, ``owner/name``."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def problems(error: ValidationError, model: type[BaseModel]) -> str:
    """Every wrong setting with its value and, for a number, its valid range."""
    return "; ".join(_problem(dict(problem), model) for problem in error.errors())


def _problem(problem: dict[str, Any], model: type[BaseModel]) -> str:
    if problem["type"] == "value_error" and isinstance(problem["input"], (dict, BaseModel)):
        return str(problem["ctx"]["error"])
    key = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    text = f"{key}: {message}, not {str(problem['input'])[:100]}"
    bounds = _range(model.model_json_schema(), problem["loc"])
    if not bounds or problem["type"] == "value_error":
        return text
    return f"{text}; it must be {' and '.join(bounds)}"


def _range(schema: dict[str, Any], place: tuple[int | str, ...]) -> list[str]:
    """The bounds of the number at a place in a JSON schema; empty for anything else."""
    part: dict[str, Any] = schema
    for step in (*place, None):
        part = next((kind for kind in part.get("anyOf", []) if kind.get("type") != "null"), part)
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
        if step is None:
            break
        if isinstance(step, int):
            items = part.get("prefixItems", [])
            part = items[step] if step < len(items) else part.get("items", {})
        else:
            part = part.get("properties", {}).get(step, {})
    return [form.format(part[bound]) for bound, form in _BOUNDS.items() if bound in part]
