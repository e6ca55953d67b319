"""Calls as a consumer downstream must get them, put together from the public tables by plain SQL."""

from __future__ import annotations

import json
from datetime import datetime
from typing import cast

from analytics.store import Store
from calls.model import CallKey
from calls.payload import JsonObject, JsonValue

LISTS = {
    "analysis": "call_analysis", "variables": "call_variables", "actions": "call_actions",
    "appointments": "appointments", "leads": "leads",
}  # fmt: skip
AROUND = ("schema", "version", "journal_id", "truncated")
"""What a record says beside the columns."""


def public_calls(store: Store) -> dict[CallKey, JsonObject]:
    """Every call as the tables tell it: a row of `calls`, with those of the other tables that belong to it."""
    found = {_key(row): row for row in _as_json(store, "FROM calls")}
    for name, table in LISTS.items():
        for call in found.values():
            call[name] = []
        for row in _as_json(store, f"FROM {table} WHERE call_id IS NOT NULL"):
            key = _key(row)
            item = {field: value for field, value in row.items() if field not in ("provider", "org", "call_id")}
            cast("list[JsonValue]", found[key][name]).append(item)
    return found


def columns_of(record: bytes) -> JsonObject:
    """What a record's value tells of the call itself."""
    return {name: value for name, value in json.loads(record).items() if name not in AROUND}


def _key(row: JsonObject) -> CallKey:
    return CallKey(str(row["provider"]), str(row["org"]), str(row["call_id"]))


def _as_json(store: Store, text: str) -> list[JsonObject]:
    with store.cursor() as cursor:
        found = cursor.execute(text)
        columns = [(name, str(kind)) for name, kind, *_ in found.description or ()]
        return [
            {name: _plain(value, kind) for (name, kind), value in zip(columns, row, strict=True)}
            for row in found.fetchall()
        ]


def _plain(value: object, kind: str) -> JsonValue:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    if kind == "JSON" and value is not None:
        return cast(JsonValue, json.loads(str(value)))
    return cast(JsonValue, value)
