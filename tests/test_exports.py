"""Tables as files: what goes in comes out, and nothing in it can act."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.cells import FORMULA_STARTS, inert, plain
from analytics.exports import CELL_TEXT_MAX, SHEET_ROWS_MAX, Form, rows, to_bytes, workbook
from calls.errors import CalltallyError

MOMENT = datetime(2026, 3, 29, 1, 30, 0, 5, tzinfo=UTC)
ODD = [
    '=HYPERLINK("http://evil.example")', "+13125550142", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1",
    "plain", "", "a,b;c", "line\r\nbreak", 'quote "x"', "\N{ROBOT FACE} \u5f20 \u202e", "nul\0byte",
    "\x01\x1f\ufffe", "_x0041_", "'", "<b>&amp;</b>",
]  # fmt: skip
TABLE = pa.table(
    {
        "text": pa.array([*ODD, None], pa.string()),
        "whole": pa.array([2**60 + 1, *range(len(ODD))], pa.int64()),
        "number": pa.array([float("nan"), float("inf"), *([0.1] * (len(ODD) - 1))], pa.float64()),
        "yes": pa.array([True, None, *([False] * (len(ODD) - 1))], pa.bool_()),
        "at": pa.array([MOMENT.replace(tzinfo=None)] * len(ODD) + [None], pa.timestamp("us")),
        "nested": pa.array([[{"name": "=1", "at": MOMENT}]] * len(ODD) + [None]),
    }
)
SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def lines(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


class Sheet:
    """A sheet of a workbook, read without any library of ours."""

    def __init__(self, content: bytes, number: int = 1) -> None:
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            names = book.namelist()
            strings = book.read("xl/sharedStrings.xml") if "xl/sharedStrings.xml" in names else b"<a/>"
            self.texts = ["".join(t.itertext()) for t in ElementTree.fromstring(strings).iter(f"{SPACE}si")]
            self.tree = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))
            self.names = [
                sheet.get("name")
                for sheet in ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{SPACE}sheet")
            ]
            self.parts = names

    def column(self, letter: str) -> list[str | float]:
        found: list[str | float] = []
        for cell in self.tree.iter(f"{SPACE}c"):
            if (cell.get("r") or "").rstrip("0123456789") == letter:
                value = cell.findtext(f"{SPACE}v") or ""
                found.append(self.texts[int(value)] if cell.get("t") == "s" else float(value))
        return found

    @property
    def formulas(self) -> int:
        return sum(1 for _ in self.tree.iter(f"{SPACE}f"))


def test_parquet_is_exactly_what_was_given() -> None:
    """Types, nulls and nested values too."""
    found = pyarrow.parquet.read_table(io.BytesIO(to_bytes(TABLE, Form.PARQUET)))
    assert found.schema.equals(TABLE.schema)
    assert repr(found.to_pylist()) == repr(TABLE.to_pylist())


def test_csv_holds_every_text_and_no_formula() -> None:
    """What a spreadsheet would compute has an apostrophe in front; all else is as it was."""
    head, *body = lines(to_bytes(TABLE, Form.CSV))
    assert head == TABLE.column_names
    assert [row[0] for row in body] == [*map(inert, ODD), ""]
    assert not any(cell.startswith(FORMULA_STARTS) for row in body for cell in row)
    assert body[0][1] == str(2**60 + 1)
    assert body[0][4] == "2026-03-29T01:30:00.000005Z"
    assert json.loads(body[0][5]) == [{"name": "=1", "at": "2026-03-29T01:30:00.000005Z"}]


def test_csv_of_whole_seconds_has_no_fractions() -> None:
    """Times with a zone are told in UTC."""
    times = pa.array([datetime(2026, 3, 29, 1, 30, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin"))
    assert lines(to_bytes(pa.table({"at": times}), Form.CSV))[1] == ["2026-03-29T01:30:00Z"]


@given(st.lists(st.text(), min_size=1, max_size=20))
def test_any_text_comes_out_of_csv_inert_and_whole(texts: list[str]) -> None:
    """Only the apostrophe is added, and only where it is needed."""
    _, *body = lines(to_bytes(pa.table({"a": texts, "b": texts}), Form.CSV))
    assert [row[0] for row in body] == [inert(text) for text in texts]


def test_names_of_columns_are_inert_too() -> None:
    """They come from people's own queries."""
    table = pa.table({"=1+1": [1], "b|c": [2]})
    assert lines(to_bytes(table, Form.CSV))[0] == ["'=1+1", "b|c"]
    assert to_bytes(table, Form.MARKDOWN).splitlines()[0] == b"| =1+1 | b\\|c |"
    sheet = Sheet(to_bytes(table, Form.XLSX))
    assert (sheet.formulas, sheet.column("A")) == (0, ["=1+1", 1.0])


def test_other_types_are_text_in_csv() -> None:
    """Enums, dates, decimals and bytes."""
    table = pa.table(
        {
            "enum": pa.array(["=1", "b"]).dictionary_encode(),
            "day": [date(2026, 1, 2), None],
            "decimal": [Decimal("-1.50"), None],
            "bytes": [b"=\x00\xff", None],
        }
    )
    assert lines(to_bytes(table, Form.CSV))[1:] == [["'=1", "2026-01-02", "-1.50", "PQD/"], ["b", "", "", ""]]


def test_json_is_one_array_that_any_reader_takes() -> None:
    """NaN is null, whole numbers beyond 2^53 are text, times have a Z."""
    found = json.loads(to_bytes(TABLE, Form.JSON), parse_constant=pytest.fail)
    assert [row["text"] for row in found] == [*ODD, None]
    assert (found[0]["whole"], found[0]["number"], found[1]["number"]) == (str(2**60 + 1), None, None)
    assert found[0]["at"] == "2026-03-29T01:30:00.000005Z"
    assert found[0]["nested"] == [{"name": "=1", "at": "2026-03-29T01:30:00.000005Z"}]


def test_a_workbook_opens_and_has_text_for_text() -> None:
    """No formula, no link; odd characters stay."""
    sheet = Sheet(to_bytes(TABLE, Form.XLSX, title="calls"))
    assert sheet.formulas == 0
    assert not [part for part in sheet.parts if "rels" in part and "sheet" in part]
    assert sheet.names == ["calls"]
    texts = sheet.column("A")
    assert texts[0] == "text"
    # Of what XML cannot hold, Excel writes the code (_x0000_), and of what looks like one, its first sign.
    kept = [text for text in ODD if text and text.isprintable() and "_x" not in text]
    assert set(kept) <= set(texts)
    assert sheet.column("B")[1:3] == [str(2**60 + 1), 0.0]
    assert sheet.column("C")[1:3] == [0.1, 0.1]
    assert sheet.column("D")[1:3] == [1.0, 0.0]
    assert isinstance(sheet.column("E")[1], float)


def test_a_column_of_times_has_room_for_them() -> None:
    """Excel shows ####### where a time is wider than its column."""
    for name in ("at", "x" * 30):
        sheet = Sheet(to_bytes(pa.table({name: TABLE.column("at")}), Form.XLSX))
        (width,) = [float(col.get("width") or 0) for col in sheet.tree.iter(f"{SPACE}col")]
        assert width > max(len("2026-03-29 01:30:00"), len(name))


def test_people_read_times_of_a_zone_on_its_clocks() -> None:
    """Midnight in Berlin is no evening of the day before; programs get the same moment in UTC."""
    midnight = pa.array([datetime(2026, 11, 14, 23, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin"))
    table = pa.table({"start": midnight})
    sheet = Sheet(to_bytes(table, Form.XLSX))

    assert to_bytes(table, Form.MARKDOWN).decode().splitlines()[::2] == [
        "| start (Europe/Berlin) |", "| 2026-11-15 00:00:00 |",
    ]  # fmt: skip
    assert sheet.column("A") == ["start (Europe/Berlin)", float((date(2026, 11, 15) - date(1899, 12, 30)).days)]
    assert lines(to_bytes(table, Form.CSV)) == [["start"], ["2026-11-14T23:00:00Z"]]


def test_numbers_in_markdown_have_the_digits_that_are_read() -> None:
    """Whole ones no point, others no noise of their seventeenth digit."""
    table = pa.table({"a": [60.0, 0.1 + 0.2, 2 / 3, 1e300, float("nan")]})
    assert to_bytes(table, Form.MARKDOWN).decode().splitlines()[2:] == [
        "| 60 |", "| 0.3 |", "| 0.666667 |", "| 1e+300 |", "| nan |",
    ]  # fmt: skip


@settings(max_examples=25)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_makes_a_workbook_that_opens(texts: list[str]) -> None:
    """As names of sheets, too."""
    content = workbook({text: pa.table({"a": texts}) for text in texts})
    assert Sheet(content).formulas == 0


def test_sheets_have_names_that_excel_takes() -> None:
    """At most 31 characters, none of its own signs, no two alike."""
    titles = ["calls", "CALLS", "a/b:c?[d]", "x" * 40, "x" * 41, "History", "''", ""]
    names = Sheet(workbook({title: pa.table({"a": [1]}) for title in titles})).names
    assert names == ["calls", "CALLS 2", "a b c  d", "x" * 31, "x" * 29 + " 2", "History ", "Sheet", "Sheet 2"]


def test_odd_values_in_a_workbook_are_text() -> None:
    """What Excel has no form for: years before 1900, decimals, lists; long texts are cut."""
    table = pa.table(
        {
            "a": [datetime(1754, 1, 1)],
            "b": [Decimal("1.50")],
            "c": [[1, 2]],
            "d": ["x" * (CELL_TEXT_MAX + 5)],
        }
    )
    sheet = Sheet(to_bytes(table, Form.XLSX))
    assert [sheet.column(letter)[1] for letter in "ABC"] == ["1754-01-01T00:00:00Z", "1.50", "[1, 2]"]
    assert sheet.column("D")[1] == "x" * CELL_TEXT_MAX


def test_more_rows_than_a_sheet_holds_are_refused() -> None:
    """Rather than dropped without a word."""
    table = pa.table({"a": pa.nulls(SHEET_ROWS_MAX + 1, pa.int8())})
    with pytest.raises(CalltallyError, match=r"a sheet holds 1,048,575.*csv or parquet"):
        to_bytes(table, Form.XLSX, title="calls")


def test_markdown_is_text_in_cells() -> None:
    """Marks, bars, breaks and what becomes a link by itself."""
    table = pa.table(
        {"a": ["**b** | [x](y) `c` <i>", "line\r\nbreak\0", "https://evil.example www.evil.example a@b.cd"]}
    )
    body = to_bytes(table, Form.MARKDOWN).decode().splitlines()[2:]
    assert body == [
        r"| \*\*b\*\* \| \[x\](y) \`c\` \<i\> |",
        "| line break  |",
        r"| https\://evil.example www\.evil.example a\@b.cd |",
    ]


@pytest.mark.parametrize("form", list(Form))
def test_no_rows_make_a_file_with_names(form: Form) -> None:
    """An empty answer is an answer."""
    content = to_bytes(TABLE.slice(0, 0), form)
    if form is Form.JSON:
        assert content == b"[]"
    elif form is Form.PARQUET:
        assert pyarrow.parquet.read_table(io.BytesIO(content)).column_names == TABLE.column_names
    elif form is Form.XLSX:
        assert Sheet(content).column("F") == ["nested"]
    else:
        assert content.decode().splitlines()[0].count("text") == 1


def test_rows_are_dictionaries() -> None:
    """As pages take them."""
    assert rows(pa.table({"a": [1, None]})) == [{"a": 1}, {"a": None}]


def test_plain_values_of_other_kinds() -> None:
    """Times in UTC with Z, bytes in base64."""
    assert plain(MOMENT) == "2026-03-29T01:30:00.000005Z"
    assert plain(b"\xff") == "/w=="
    assert plain(Decimal("1.50")) == "1.50"
