"""Words of others where Streamlit reads Markdown."""

from __future__ import annotations

from dashboard import words

_SIGNS = frozenset("\\`*_{}[]()#+-.!|~>$:<&=^@'\"/")


def literal(text: str, most: int = 2_000) -> str:
    """The text as Markdown that shows it as it is, on one line: no markup, formula, emoji name or link comes of it."""
    return "".join("\\" + char if char in _SIGNS else char for char in words.label(text, most))
