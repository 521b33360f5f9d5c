"""Text is UTF-8 in every locale: where nothing says so, it is what LANG says, and fails late."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cxr", "cxr_assets", "cxr_serving", "deploy")
# Where the encoding stands, without its name.
POSITIONS = {"read_text": 0, "write_text": 1}


def unspecified(code: str) -> Iterator[int]:
    """Lines on which a text file is read or written in the encoding of the locale."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            named = any(keyword.arg == "encoding" for keyword in node.keywords)
            if name in POSITIONS and not named and len(node.args) <= POSITIONS[name]:
                yield node.lineno


def test_every_text_file_is_utf_8() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in unspecified(path.read_text("utf-8"))
    ]
    assert found == [], 'say encoding="utf-8"'


def test_one_that_is_not_is_found() -> None:
    assert list(unspecified('a.read_text()\nb.write_text("")\nb.write_text("", "utf-8")')) == [1, 2]
