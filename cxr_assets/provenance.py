"""Identity of a training: code version and fingerprint."""

import ast
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def code_version(*modules: str) -> str:
    """Digest of what the code of modules or packages does, blind to comments and docstrings.

    Args:
        modules: dotted names; a package stands for every module in it.

    Returns:
        sha256, hexadecimal.
    """
    digest = hashlib.sha256()
    for module in sorted(modules):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no module named {module}")
        origin = Path(spec.origin)
        sources = (
            sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
        )
        for source in sources:
            name = f"{module}:{source.relative_to(origin.parent).as_posix()}"
            digest.update(f"{name}\n{_essence(source.read_text())}\n".encode())
    return digest.hexdigest()


def fingerprint(content: Mapping[str, Any]) -> str:
    """sha256, hexadecimal, over JSON-able ``content`` in canonical form."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@cache
def _essence(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (
            node.body
            and isinstance(node.body[0], ast.Expr)
            and isinstance(node.body[0].value, ast.Constant)
            and isinstance(node.body[0].value.value, str)
        ):
            node.body[0] = ast.Pass()
    return ast.unparse(tree)
