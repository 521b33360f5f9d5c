"""Identity of a training: code version and fingerprint."""

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

# The top-level packages of this project. They import one another only in one direction, so that the
# code of the HTTP service, the reports and the graph is in the closure of no training.
OURS = frozenset({"cxr_assets", "cxr_serving"})


def code_version(*modules: str) -> str:
    """Digest of all code that modules run, blind to comments and docstrings.

    Their own code counts, that of every module of this project which they import, wherever in the
    code and however indirectly, and the version of every other library that any of these imports.

    Args:
        modules: dotted names.

    Returns:
        sha256, hexadecimal.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    files, libraries = closure(*modules)
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n{_essence(path.read_text(encoding='utf-8'))}\n".encode())
    for name, number in sorted(libraries.items()):
        digest.update(f"{name}=={number}\n".encode())
    return digest.hexdigest()


def closure(*modules: str) -> tuple[dict[str, Path], dict[str, str]]:
    """What modules run: the import graph from them on, read from the sources.

    Args:
        modules: dotted names; their top-level packages count as this project's, too.

    Returns:
        The source file of each module of this project, by dotted name, and the version of each
        installed distribution that these import, by name. What tells builds for different devices
        apart (``+cpu``, ``+cu128``) is left out.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    ours = OURS | {module.partition(".")[0] for module in modules}
    files: dict[str, Path] = {}
    foreign: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        if (found := _source(name)) is None:
            raise ModuleNotFoundError(f"no module named {name}")
        files[name], package = found
        # Importing a module runs the packages that it lies in.
        waiting += [".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)]
        for imported in _imports(files[name].read_text(encoding="utf-8"), package):
            top = imported.partition(".")[0]
            if top not in ours:
                foreign.add(top)
            elif _source(imported) is not None:
                waiting.append(imported)
    distributions = _distributions()
    return files, {
        distribution: version(distribution).partition("+")[0]
        for name in foreign - sys.stdlib_module_names
        for distribution in distributions.get(name, ())
    }


def fingerprint(content: Mapping[str, Any]) -> str:
    """sha256, hexadecimal, over JSON-able ``content`` in canonical form."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


_distributions = cache(packages_distributions)


def _source(module: str) -> tuple[Path, str] | None:
    """Source file of a module, and the package that its relative imports start from."""
    parent, _, _ = module.rpartition(".")
    if parent and (_source(parent) is None or not _is_package(parent)):
        return None  # a class or function, which find_spec cannot look for
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin), spec.parent or ""


def _is_package(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


@cache
def _imports(source: str, package: str) -> frozenset[str]:
    """Dotted names that a module imports or may import: ``a.b`` of ``from a import b``, too."""
    names: set[str] = set()
    for node in _running(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but for what stands under ``if TYPE_CHECKING``, which never runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


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
