"""The rows of a query, and how they travel: as an Arrow stream or as JSON."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
Convert: TypeAlias = Callable[[Any], Json]
"""From what Arrow gives for one type of column; never called with None."""

VERSION_HEADER: Final = "X-Calltally-Version"
TRUNCATED_HEADER: Final = "X-Calltally-Truncated"
LAG_HEADER: Final = "X-Calltally-Lag"
EXACT_MAX: Final = 2**53
"""JavaScript and others hold JSON numbers as doubles: whole numbers beyond this are sent as text."""
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001  # without a zone, like the store's times


class Answer(NamedTuple):
    """The rows of a query and whether they were cut off."""

    table: pa.Table
    truncated: bool
    version: int = 0
    """Which state of the store they are from or older than: the sum of its positions."""


def distinct_names(table: pa.Table) -> pa.Table:
    """Repeated column names get `_1`, `_2` and so on, as a row of named values cannot hold them otherwise."""
    taken = set(table.column_names)
    if len(taken) == table.num_columns:
        return table
    seen: set[str] = set()
    names: list[str] = []
    for name in table.column_names:
        unique, number = name, 0
        while unique in seen or (number and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        seen.add(unique)
        names.append(unique)
    return table.rename_columns(names)


def narrowed(table: pa.Table, types: Sequence[str]) -> pa.Table:
    """Columns of 128-bit numbers, which every sum() of whole numbers gives, become 64-bit ones where they fit."""
    for index, kind in enumerate(types):
        if kind in ("HUGEINT", "UHUGEINT"):
            try:
                column = pc.cast(table.column(index), pa.int64())
            except pa.ArrowInvalid:
                continue
            table = table.set_column(index, table.schema.field(index).with_type(pa.int64()), column)
    return table


def to_arrow(answer: Answer) -> bytes:
    """An Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.table.schema) as writer:
        writer.write_table(answer.table)
    return bytes(sink.getvalue().to_pybytes())


def to_json(answer: Answer) -> bytes:
    """`{"columns": [...], "rows": [{...}], "truncated": ...}`; times ISO with Z, what JSON cannot say text or null."""
    table = answer.table
    columns = [_column(column) for column in table.columns]
    names = table.column_names
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return msgspec.json.encode({"columns": names, "rows": rows, "truncated": answer.truncated})


def _column(column: pa.ChunkedArray) -> list[Json]:
    convert = _converter(column.type)
    values = _values(column)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _values(column: pa.ChunkedArray) -> list[Json]:
    """Times as numbers at any depth: `infinity` and far years have no Python object."""
    target = _numeric(column.type)
    return list((column if target == column.type else column.cast(target)).to_pylist())


def _numeric(kind: pa.DataType) -> pa.DataType:
    if pt.is_timestamp(kind):
        return pa.int64()
    if pt.is_date32(kind):
        return pa.int32()
    if pt.is_map(kind):
        return pa.map_(_numeric(kind.key_type), _numeric(kind.item_type))
    if pt.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_numeric(kind.value_type)), kind.list_size)
    if pt.is_list(kind):
        return pa.list_(kind.value_field.with_type(_numeric(kind.value_type)))
    if pt.is_struct(kind):
        return pa.struct(
            [kind.field(index).with_type(_numeric(kind.field(index).type)) for index in range(kind.num_fields)]
        )
    return kind


def _converter(kind: pa.DataType) -> Convert | None:
    """How a value of a type is written; None where it is JSON as it is."""
    for applies, convert in _PLAIN:
        if applies(kind):
            return convert
    if pt.is_timestamp(kind):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return lambda value: _time(value, per_second)
    if pt.is_dictionary(kind):
        return _converter(kind.value_type)
    if pt.is_map(kind):
        return _map(_nested(kind.key_type), _nested(kind.item_type))
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        return _list(_nested(kind.value_type))
    if pt.is_struct(kind):
        return _struct({kind.field(index).name: _nested(kind.field(index).type) for index in range(kind.num_fields)})
    return str


def _nested(kind: pa.DataType) -> Convert:
    """The same inside lists and structs, where a value may be missing."""
    convert = _converter(kind)
    return lambda value: value if value is None or convert is None else convert(value)


def _list(inner: Convert) -> Convert:
    return lambda value: [inner(item) for item in value]


def _map(key: Convert, inner: Convert) -> Convert:
    return lambda value: {str(key(name)): inner(item) for name, item in value}


def _struct(fields: Mapping[str, Convert]) -> Convert:
    return lambda value: {name: inner(value.get(name)) for name, inner in fields.items()}


def _integer(value: int | Decimal) -> Json:
    number = int(value)
    return number if abs(number) <= EXACT_MAX else str(number)


def _float(value: float) -> Json:
    return value if math.isfinite(value) else None


def _bytes(value: bytes) -> Json:
    return base64.b64encode(value).decode()


def _day(value: int) -> Json:
    ordinal = _EPOCH.toordinal() + value
    return dt.date.fromordinal(ordinal).isoformat() if 0 < ordinal <= dt.date.max.toordinal() else None


def _time(value: int, per_second: int) -> Json:
    seconds, rest = divmod(value, per_second)
    try:
        moment = _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError:
        return None
    digits = f".{rest * 10**9 // per_second:09d}" if rest else ""
    return f"{moment.isoformat()}{digits[:7] if digits.endswith('000') else digits}Z"


def _clock(value: dt.time) -> Json:
    return value.isoformat()


def _interval(value: tuple[int, int, int]) -> Json:
    """ISO 8601, as `P1M2DT3.5S`."""
    months, days, nanoseconds = value
    seconds = f"{Decimal(nanoseconds).scaleb(-9).normalize():f}"
    parts = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    return f"P{parts}" + (f"T{seconds}S" if nanoseconds or not parts else "")


def _hugeint(kind: pa.DataType) -> bool:
    return bool(pt.is_decimal(kind)) and kind.scale == 0 and kind.precision == 38


def _text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_boolean(kind) or pt.is_null(kind))


def _small(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind)) and kind.bit_width < 64


def _binary(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind))


_PLAIN: Final[tuple[tuple[Callable[[pa.DataType], bool], Convert | None], ...]] = (
    (_text, None),
    (_small, None),
    (pt.is_integer, _integer),
    (pt.is_floating, _float),
    (_hugeint, _integer),
    (pt.is_decimal, str),
    (_binary, _bytes),
    (pt.is_date32, _day),
    (pt.is_time, _clock),
    (pt.is_interval, _interval),
)
