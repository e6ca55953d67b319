"""Parts of pages that Streamlit has no element for: tiles, tables whose rows open, facts, a conversation, a schema.

A part is a file of `parts/`: plain JavaScript that puts data into the page as text, never as HTML, so what a platform
or a caller says stays text. New data changes what is there in place: nothing flickers, nothing loses its focus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import streamlit as st

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

FOLDER = Path(__file__).parent / "parts"


class Cell(TypedDict, total=False):
    """What stands in a table's cell; all but `text` may be left out."""

    text: str
    at: int
    """Milliseconds of a moment, told instead of the text as a time ago."""
    below: str
    """Smaller, beside the text, or below it where there is little room."""
    hint: str
    """Shown when pointed at."""
    tone: str
    """good, bad, middle or quiet; a mark beside the text says it without colour."""


class Column(TypedDict, total=False):
    """A table's column."""

    title: str
    number: bool
    """Right-aligned."""
    narrow: bool
    """Left out where the page is as narrow as a phone."""
    wrap: bool
    """May take several lines."""


class Row(TypedDict, total=False):
    """A table's row; one with an address opens."""

    id: str
    cells: Sequence[Cell]
    href: str


class TileData(TypedDict):
    """A tile and, behind it, the passport of its number."""

    name: str
    title: str
    figure: str
    change: str
    tone: str
    base: str
    points: Sequence[float | None]
    about: str
    note: str
    sql: str
    href: str


def heading(
    title: str, line: str, *, newest_ms: int | None = None, behind: str = "", zone: str = "", leads_to: str = ""
) -> None:
    """The page's title and one grey line; `newest_ms` is told as a time ago that goes on by itself.

    `zone` is put into the address where that has none; the browser leaves for `leads_to`.
    """
    told = {"title": title, "line": line, "newest": newest_ms, "behind": behind, "zone": zone, "lead": leads_to}
    _mount("heading", f"heading-{title}", told)


def tiles(key: str, rows: Sequence[TileData]) -> None:
    """Tiles of equal height beside each other."""
    _mount("tiles", key, {"tiles": list(rows)})


def table(key: str, columns: Sequence[Column], rows: Sequence[Row], *, label: str, mark_new: str = "") -> None:
    """A table; a row with an address leads there.

    Rows that come while `mark_new` stays the same are marked for two seconds; empty, none are.
    """
    _mount("table", key, {"columns": list(columns), "rows": list(rows), "label": label, "mark": mark_new})


def facts(key: str, items: Mapping[str, Cell | str]) -> None:
    """Names and values, side by side."""
    shown = [{"name": name, **(value if isinstance(value, dict) else {"text": value})} for name, value in items.items()]
    _mount("facts", key, {"items": shown})


def text(key: str, content: str) -> None:
    """Somebody's words as they are, line breaks kept."""
    _mount("text", key, {"text": content})


def talk(key: str, turns: Sequence[tuple[str, str]]) -> None:
    """A conversation: who (agent, caller, or empty where unknown) and what they said."""
    _mount("talk", key, {"turns": [{"who": who, "said": said} for who, said in turns]})


def schema(key: str, tables: Mapping[str, Sequence[tuple[str, str, str]]]) -> None:
    """Tables that unfold to their columns: name, type, comment."""
    _mount("schema", key, {"tables": [{"name": name, "columns": list(rows)} for name, rows in tables.items()]})


def _mount(name: str, key: str, content: Mapping[str, object]) -> None:
    _component(name)(key=key, data=dict(content))


@cache
def _component(name: str) -> ComponentRenderer:
    shared = (FOLDER / "shared.js").read_text(encoding="utf-8")
    script = (FOLDER / f"{name}.js").read_text(encoding="utf-8")
    style = (FOLDER / "parts.css").read_text(encoding="utf-8")
    return st.components.v2.component(f"calltally.{name}", css=style, js=f"{shared}\n{script}")
