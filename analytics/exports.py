"""Rows as files: CSV and XLSX that no spreadsheet takes for formulas, JSON, Markdown, and Parquet exactly as stored.

Phone numbers start with `+`, which a spreadsheet would compute: in CSV such text gets an apostrophe in front. The other forms
know text from formulas and carry the values as they are.
"""

from __future__ import annotations

import io
import json
import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from analytics.cells import inert, plain

Cell: TypeAlias = "None | bool | int | float | str | datetime | list[Cell] | dict[str, Cell]"

_FORMULA_START = r"^[=+\-@\t\r]"


class Form(StrEnum):
    """A kind of file."""

    CSV = "csv"
    JSON = "json"
    XLSX = "xlsx"
    PARQUET = "parquet"
    MARKDOWN = "md"


def to_bytes(table: pa.Table, form: Form, *, title: str = "calltally") -> bytes:
    """The table as a file of that kind; times are UTC."""
    match form:
        case Form.CSV:
            return _csv(table)
        case Form.JSON:
            return json.dumps(rows(table), default=plain, ensure_ascii=False).encode()
        case Form.XLSX:
            return _xlsx({title: table})
        case Form.PARQUET:
            sink = io.BytesIO()
            pyarrow.parquet.write_table(table, sink, compression="zstd")
            return sink.getvalue()
        case Form.MARKDOWN:
            return _markdown(table).encode()


def workbook(tables: dict[str, pa.Table]) -> bytes:
    """Several tables as the sheets of one XLSX file."""
    return _xlsx(tables)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that its final name only ever holds the whole of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def rows(table: pa.Table) -> list[dict[str, Cell]]:
    """The table as one dictionary a row."""
    found: list[dict[str, Cell]] = table.to_pylist()
    return found


def _csv(table: pa.Table) -> bytes:
    columns = [_csv_column(column) for column in table.columns]
    sink = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(columns, names=[inert(name) for name in table.column_names]), sink)
    return sink.getvalue()


def _csv_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_nested(kind):
        texts = [None if value is None else json.dumps(value, default=plain) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.string())])
    elif pa.types.is_timestamp(kind):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return column
    text = column.cast(pa.string())
    return pc.if_else(pc.match_substring_regex(text, _FORMULA_START), pc.binary_join_element_wise("'", text, ""), text)


def _xlsx(tables: dict[str, pa.Table]) -> bytes:
    import xlsxwriter

    sink = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": True}
    with xlsxwriter.Workbook(sink, options) as book:
        bold = book.add_format({"bold": True})
        moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        for title, table in tables.items():
            sheet = book.add_worksheet(title[:31])
            sheet.write_row(0, 0, table.column_names, bold)
            sheet.freeze_panes(1, 0)
            for index, column in enumerate(table.columns):
                _xlsx_column(sheet, index, column, moment)
            sheet.autofit()
    return sink.getvalue()


def _xlsx_column(sheet: object, index: int, column: pa.ChunkedArray, moment: object) -> None:
    from xlsxwriter.worksheet import Worksheet

    assert isinstance(sheet, Worksheet)
    for row, value in enumerate(column.to_pylist(), start=1):
        if isinstance(value, datetime):
            sheet.write_datetime(
                row, index, value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value, moment
            )
        elif isinstance(value, bool | int | float):
            sheet.write(row, index, value)
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, default=plain)
            # A cell of a workbook ends at 32,767 characters; the whole text is in CSV, JSON and Parquet.
            sheet.write_string(row, index, text[:32_767])


def _markdown(table: pa.Table) -> str:
    lines = ["| " + " | ".join(table.column_names) + " |", "|" + " --- |" * table.num_columns]
    lines += ["| " + " | ".join(_markdown_cell(value) for value in row.values()) + " |" for row in rows(table)]
    return "\n".join(lines) + "\n"


def _markdown_cell(value: Cell) -> str:
    if value is None:
        return ""
    text = json.dumps(value, default=plain) if isinstance(value, dict | list) else plain(value)
    for char in "\\`*_[]<>|":
        text = text.replace(char, "\\" + char)
    return text.replace("\n", " ").replace("\r", " ")
