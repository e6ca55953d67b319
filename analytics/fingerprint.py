"""What a store was made by: the rules and the code that decide what a delivery means and a call counts as.

A store made by others holds other numbers than a rebuild would give, so it has to be rebuilt. The code is the two pure
steps of the stream, every provider, and what of `calls` these import. They are read as text: importing them from here
would turn the direction of the imports round. Comments, docstrings and layout do not count; another version of Python
may, and then costs a rebuild that changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from calls.model import Rules

ROOT = Path(__file__).parent.parent


def fingerprint(rules: Rules) -> str:
    """The same for equal rules and equal code."""
    said = msgspec.json.encode(rules, order="sorted")
    return hashlib.sha256(said + _code(ROOT).encode()).hexdigest()[:32]


@cache
def _code(root: Path) -> str:
    digest = hashlib.sha256()
    for path, tree in sorted(_interpretation(root).items()):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _interpretation(root: Path) -> dict[Path, ast.Module]:
    streams = root / "streams"
    waiting = [streams / "steps.py", streams / "fold.py", *(root / "calls" / "providers").glob("*.py")]
    found: dict[Path, ast.Module] = {}
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found[path] = _without_docstrings(ast.parse(path.read_bytes()))
            waiting += _imported(found[path], root)
    return found


def _imported(tree: ast.Module, root: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "calls":
            yield root.joinpath(*node.module.split(".")).with_suffix(".py")
            yield from (root.joinpath(*node.module.split("."), name.name).with_suffix(".py") for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (root.joinpath(*name.name.split(".")).with_suffix(".py") for name in node.names)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
