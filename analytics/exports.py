"""Rows as files: CSV and XLSX that no spreadsheet takes for formulas, JSON, Markdown, and Parquet exactly as stored.

Phone numbers start with `+`, which a spreadsheet would compute: in CSV such text gets an apostrophe in front. The other
forms know text from formulas and carry the values as they are. Times without a zone are UTC, as in the store; those of
another zone are told on its clocks where people read them (XLSX, Markdown), and the head of their column names it.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pyarrow.types as pt

from analytics.answer import Answer, distinct_names, to_json
from analytics.cells import FORMULA_STARTS, inert, plain
from calls.errors import CalltallyError

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

Cell: TypeAlias = "None | bool | int | float | str | datetime | list[Cell] | dict[str, Cell]"

SHEET_ROWS_MAX = 1_048_575
"""Beside its line of names, a sheet holds no more; xlsxwriter would drop the others without a word."""
CELL_TEXT_MAX = 32_767
"""Units of UTF-16 in a sheet's cell; the whole text is in CSV, JSON and Parquet."""
MOMENT = "yyyy-mm-dd hh:mm:ss"
MOMENT_WIDTH = len(MOMENT) + 2
"""Of a sheet's column, in digits."""
EXACT_MAX = 2**53
"""A sheet holds numbers as doubles: whole ones beyond this are written as text."""

_FORMULA_START = "^[" + "".join(re.escape(char) for char in FORMULA_STARTS) + "]"


class Form(StrEnum):
    """A kind of file."""

    CSV = "csv"
    JSON = "json"
    XLSX = "xlsx"
    PARQUET = "parquet"
    MARKDOWN = "md"


def to_bytes(table: pa.Table, form: Form, *, title: str = "calltally") -> bytes:
    """The table as a file of that kind. Raises CalltallyError for what does not fit into a sheet."""
    match form:
        case Form.CSV:
            return _csv(table)
        case Form.JSON:
            return _json(table)
        case Form.XLSX:
            return workbook({title: table})
        case Form.PARQUET:
            sink = io.BytesIO()
            pyarrow.parquet.write_table(table, sink, compression="zstd")
            return sink.getvalue()
        case Form.MARKDOWN:
            return _markdown(table).encode()


def workbook(tables: Mapping[str, pa.Table]) -> bytes:
    """Several tables as the sheets of one XLSX file. Raises CalltallyError for a table that does not fit."""
    import xlsxwriter

    sink = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    taken: set[str] = set()
    with xlsxwriter.Workbook(sink, options) as book:
        bold = book.add_format({"bold": True})
        moment = book.add_format({"num_format": MOMENT})
        for title, table in tables.items():
            if table.num_rows > SHEET_ROWS_MAX:
                raise CalltallyError(
                    f"{title} has {table.num_rows:,} rows and a sheet holds {SHEET_ROWS_MAX:,}. Write it as csv or "
                    "parquet, or choose a narrower range.",
                    code="too_many_rows",
                )
            sheet = book.add_worksheet(_sheet_name(title, taken))
            heads = _heads(table)
            for index, name in enumerate(heads):
                sheet.write_string(0, index, _cut(name, CELL_TEXT_MAX), bold)
            sheet.freeze_panes(1, 0)
            for index, column in enumerate(table.columns):
                _xlsx_column(sheet, index, column, moment)
            sheet.autofit(max_width=420)
            for index, column in enumerate(table.columns):
                if pt.is_timestamp(column.type):
                    # Fitted, it would have room for a day only, and Excel shows a time that lacks room as #####.
                    sheet.set_column(index, index, max(MOMENT_WIDTH, min(len(heads[index]) + 2, 40)))
    return sink.getvalue()


def markdown(value: object) -> str:
    """A value as Markdown that shows it and nothing else, on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        # What is behind the sixth digit is noise to a reader.
        text = str(int(value) if value.is_integer() and abs(value) <= EXACT_MAX else round(value, 6))
    elif isinstance(value, datetime) and value.tzinfo is not None and str(value.tzinfo) != "UTC":
        text = value.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    else:
        text = _text(value)
    return _MARKS.sub(r"\\\1", _BREAKS.sub(" ", text))


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
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pt.is_timestamp(kind):
        return _csv_times(column)
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
        return column
    if pt.is_string(kind) or pt.is_large_string(kind):
        text = column.cast(pa.large_string())
        starts = pc.match_substring_regex(text, _FORMULA_START)
        quote, nothing = pa.scalar("'", pa.large_string()), pa.scalar("", pa.large_string())
        return pc.if_else(starts, pc.binary_join_element_wise(quote, text, nothing), text)
    texts = [None if value is None else inert(_text(value)) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def _csv_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """ISO with Z; the store's precision, microseconds, only where there are some."""
    utc = column.cast(pa.timestamp("us"), safe=False)
    whole = pc.strftime(utc.cast(pa.timestamp("s"), safe=False), format="%Y-%m-%dT%H:%M:%SZ")
    fraction = pc.not_equal(pc.subsecond(utc), 0)
    if not pc.any(fraction).as_py():
        return whole
    return pc.if_else(fraction, pc.strftime(utc, format="%Y-%m-%dT%H:%M:%SZ"), whole)


class _Told(msgspec.Struct):
    """What `to_json` writes; of it, only the rows are wanted, as they are."""

    rows: msgspec.Raw


def _json(table: pa.Table) -> bytes:
    return bytes(msgspec.json.decode(to_json(Answer(distinct_names(table), False)), type=_Told).rows)


def _sheet_name(title: str, taken: set[str]) -> str:
    """A title without what a sheet's name must not hold, and unlike those before it; Excel reserves `History`."""
    name = re.sub(r"[\[\]:*?/\\\x00-\x1f\ufffe\uffff]", " ", title).strip().strip("'").strip() or "Sheet"
    if name.lower() == "history":
        name += " "
    unique, number = _cut(name, 31), 1
    while unique.lower() in taken:
        number += 1
        ending = f" {number}"
        unique = _cut(name, 31 - len(ending)) + ending
    taken.add(unique.lower())
    return unique


def _heads(table: pa.Table) -> list[str]:
    """The columns' names, with the zone of times that are not told in UTC."""
    zones = [field.type.tz if pt.is_timestamp(field.type) else None for field in table.schema]
    return [
        name if zone in (None, "UTC") else f"{name} ({zone})"
        for name, zone in zip(table.column_names, zones, strict=True)
    ]


def _xlsx_column(sheet: Worksheet, index: int, column: pa.ChunkedArray, moment: Format) -> None:
    for row, value in enumerate(column.to_pylist(), start=1):
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        if isinstance(value, datetime) and value.year >= 1900:
            sheet.write_datetime(row, index, value.replace(tzinfo=None), moment)
        elif isinstance(value, bool):
            sheet.write_boolean(row, index, value)
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) <= EXACT_MAX):
            sheet.write_number(row, index, value)
        else:
            sheet.write_string(row, index, _cut(_text(value), CELL_TEXT_MAX))


def _cut(text: str, most: int) -> str:
    """The beginning of a text; Excel counts in units of UTF-16, of which emoji take two."""
    if len(text) * 2 <= most:
        return text
    return text.encode("utf-16-le", "surrogatepass")[: 2 * most].decode("utf-16-le", "ignore")


def _markdown(table: pa.Table) -> str:
    names = [markdown(name) for name in _heads(table)]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * table.num_columns]
    columns = [column.to_pylist() for column in table.columns]
    lines += ["| " + " | ".join(map(markdown, row)) + " |" for row in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


_MARKS = re.compile(r"([\\`*_\[\]<>|~&@]|(?<=[a-z]):(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What Markdown takes for more than text: marks, entities, and what it makes links of by itself."""
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _text(value: object) -> str:
    """A value as text; lists and objects as JSON, as in all forms that are not nested themselves."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, default=plain, ensure_ascii=False)
    return plain(value)
