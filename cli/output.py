"""How commands print rows and write files: data on stdout, words on stderr, and never a half file.

A table for people, JSON or CSV for programs.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, TypeAlias

from analytics.cells import inert, plain
from calls.errors import CalltallyError

Row: TypeAlias = Mapping[str, object]
Told: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and of how much."""

TABLE_ROWS_MAX = 500
"""More rows than anybody reads on a screen; the other forms print them all."""
CELL_MAX = 160


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def say(text: str) -> None:
    """Words for the person, on stderr."""
    print(text, file=sys.stderr)


def show(rows: Sequence[Row], form: Format, *, columns: Sequence[str] | None = None) -> None:
    """Print rows; JSON is one array of objects."""
    names = list(columns) if columns is not None else list(rows[0]) if rows else []
    match form:
        case Format.JSON:
            json.dump(list(rows), sys.stdout, default=plain, ensure_ascii=False)
            sys.stdout.write("\n")
        case Format.CSV:
            writer = csv.writer(sys.stdout)
            writer.writerow(names)
            writer.writerows([_csv_cell(row[name]) for name in names] for row in rows)
        case Format.TABLE:
            show_table(rows, names)


def show_table(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Print rows for a person; those too wide for the terminal one field a line."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        say("(no rows)")
        return
    shown = rows[:TABLE_ROWS_MAX]
    cells = [[_cell(row[name]) for name in names] for row in shown]
    widths = [max(map(cell_len, [name, *column])) for name, column in zip(names, zip(*cells, strict=True), strict=True)]
    natural = sum(widths) + 2 * len(widths)
    console = Console()
    if console.is_terminal and natural > 2 * console.width:
        _show_records(cells, names)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            table.add_column(name, justify="right" if _numeric(shown, name) else "left", overflow="fold")
        for line in cells:
            table.add_row(*map(Text, line))
        # Into a pipe, a row is a line, however wide.
        (console if console.is_terminal else Console(width=natural)).print(table)
    if len(rows) > len(shown):
        say(f"{len(rows) - len(shown):,} more rows; --format csv or json prints them all.")


def printable(text: str) -> str:
    """Text whose control and other invisible characters are written out, so that it cannot move the cursor."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is whole and on disk. Raises CalltallyError where it cannot."""
    if path.is_dir():
        raise CalltallyError(f"{path} is a folder. Name a file in it.")
    aside = path.with_name(f".{path.name[:100]}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise CalltallyError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        # A read-only disk refuses this too, and what it says of a hidden file must not hide the sentence above.
        with suppress(OSError):
            aside.unlink()


def put(content: bytes, path: Path | None) -> None:
    """Write to a file, or to stdout where there is none; the path `-` is stdout too."""
    if path is None or str(path) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def progress(label: str) -> Iterator[Told]:
    """A progress bar on stderr, where somebody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield told


def _csv_cell(value: object) -> object:
    if isinstance(value, dict | list):
        value = json.dumps(value, default=plain, ensure_ascii=False)
    return inert(value) if isinstance(value, str) else plain(value) if isinstance(value, datetime) else value


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = json.dumps(value, default=plain, ensure_ascii=False) if isinstance(value, dict | list) else plain(value)
    text = printable(text[: CELL_MAX + 1])
    return text if len(text) <= CELL_MAX else text[: CELL_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _numeric(rows: Sequence[Row], name: str) -> bool:
    values = [row[name] for row in rows if row[name] is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _show_records(cells: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    width = max(map(len, names))
    for number, line in enumerate(cells, 1):
        print(f"-- row {number}")
        for name, cell in zip(names, line, strict=True):
            if cell:
                print(f"{name:>{width}}  {cell}")
