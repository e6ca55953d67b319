"""Which rows a metric reads: a relation of the store, narrowed by filters, cut into buckets of time and into slices.

A roll-up holds calls at the grain of 15 minutes, so what is read from it costs the same at ten calls and at ten
million. It lacks most columns of a call: where a filter or a slice needs one of those, the same rows are read call by
call. Ranges are widened to whole 15 minutes so that both grains agree.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from analytics.contact import CONTACT, OPTED_OUT, OUTSIDE_NUMBER
from analytics.cutting import BUCKETS, bucket_of
from calls.errors import SettingsError
from calls.model import Micros
from calls.provider import discover

GRAIN_US = 15 * 60 * 1_000_000

Parameter: TypeAlias = "str | float | None"

FILTERS = ("provider", "org", "agent_id", "campaign", "direction", "trust", "source")
"""The columns that can be filtered by."""
FILLED = (
    "(\"value\" IS NOT NULL AND CAST(\"value\" AS VARCHAR) NOT IN ('null', '[]', '{}') "
    "AND trim(coalesce(value_text, CAST(\"value\" AS VARCHAR)), ' ') <> '')"
)
"""Whether a row of `call_variables` has a value that is not empty, as the roll-up counts it."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows that a metric may read."""

    time: str
    """The column that ranges and buckets go by."""
    columns: frozenset[str]
    """Columns that may be filtered and sliced by."""
    rows: str
    """The name of a table, or a query in brackets."""
    where: str = "true"
    by_call: Relation | None = None
    """The same rows at the grain of calls, with every column of these."""
    sums: tuple[str, ...] = ()
    """Of a roll-up: the columns that hold numbers to be added up."""

    def holding(self, *columns: str) -> Relation:
        """This relation, or its rows by call where only they hold all the columns."""
        if self.by_call is None or self.columns.issuperset(columns) or not self.by_call.columns.issuperset(columns):
            return self
        return self.by_call


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which calls are looked at: a range in UTC, a zone for its buckets, and allowed values by column."""

    start: Micros
    end: Micros
    zone: str = "UTC"
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column -> its allowed values; an empty text stands for null too, no values at all for any."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", self.start - self.start % GRAIN_US)
        object.__setattr__(self, "end", self.end + -self.end % GRAIN_US)
        for column in self.only:
            if column not in FILTERS:
                raise SettingsError(f"Calls cannot be filtered by '{column}'; only by {', '.join(FILTERS)}.")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingsError(f"There is no time zone '{self.zone}'; write it like Europe/Berlin.") from None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal filters."""
        return self.start, self.end, self.zone, tuple(sorted((name, self.only[name]) for name in self.columns))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are really filtered by."""
        return tuple(column for column, values in self.only.items() if values)

    def before(self) -> Filters:
        """The same filters over the period of equal length that ends where this one starts."""
        return Filters(start=2 * self.start - self.end, end=self.start, zone=self.zone, only=self.only)

    def conditions(self, relation: Relation) -> tuple[list[str], dict[str, Parameter]]:
        """The SQL conditions that leave the rows meant, to be joined by AND, and their parameters.

        A relation without a column that is filtered by holds no row of which the filter's question could be answered,
        so none is left: no number is better than one over other calls than those asked for.
        """
        conditions = [
            f"{relation.time} >= CAST($start AS TIMESTAMP)",
            f"{relation.time} < CAST($end AS TIMESTAMP)",
        ]
        parameters: dict[str, Parameter] = {"start": iso(self.start), "end": iso(self.end)}
        for column in self.columns:
            if column not in relation.columns:
                conditions.append("false")
                continue
            names = [f"only_{column}_{index}" for index in range(len(self.only[column]))]
            parameters.update(zip(names, self.only[column], strict=True))
            conditions.append(f"coalesce(\"{column}\", '') IN ({', '.join('$' + name for name in names)})")
        return conditions, parameters


def selected(
    name: str,
    filters: Filters,
    *,
    bucket: str = "all",
    slice_by: str | None = None,
    without: frozenset[str] = frozenset(),
) -> tuple[str, dict[str, Parameter]]:
    """The query for a relation's rows with `bucket` and `slice` beside them, and its parameters.

    `without` are providers left out. Raises SettingsError for an unknown bucket or slice.
    """
    asked = RELATIONS[name]
    relation = asked.holding(*filters.columns, *([slice_by] if slice_by is not None else []))
    if bucket not in BUCKETS:
        raise SettingsError(f"There is no bucket '{bucket}'; there are {', '.join(BUCKETS)}.")
    if slice_by is not None and slice_by not in relation.columns:
        known = sorted(asked.columns | (asked.by_call.columns if asked.by_call else frozenset()))
        raise SettingsError(f"'{slice_by}' cannot slice this number; {', '.join(known)} can.")
    bucket_sql = bucket_of(relation.time, bucket, filters.start, filters.end, filters.zone)
    where, parameters = narrowed(relation, filters)
    if "$zone" in bucket_sql:
        parameters["zone"] = filters.zone
    return cut(f"{relation.rows} WHERE {where}", bucket_sql, slice_by, without), parameters


def cut(rows: str, bucket: str, slice_by: str | None, without: Collection[str]) -> str:
    """The query for `rows`, which end in a condition, with `bucket` and `slice` beside them, as a metric takes them."""
    # Where it is summed up the name stands for a number, and it is sliced by whether the call was.
    named = "CAST(transferred AS BOOLEAN)" if slice_by == "transferred" else f'"{slice_by}"'
    sliced = f"CAST({named if slice_by else 'NULL'} AS VARCHAR)"
    only = f" AND provider NOT IN ({', '.join(map(_quoted, sorted(without)))})" if without else ""
    return f'SELECT *, {bucket} AS bucket, {sliced} AS "slice" FROM {rows}{only}'


def narrowed(relation: Relation, filters: Filters) -> tuple[str, dict[str, Parameter]]:
    """The condition that leaves the rows meant, and its parameters."""
    conditions, parameters = filters.conditions(relation)
    return " AND ".join([part for part in (relation.where, *conditions) if part != "true"]), parameters


def sends(provider: str, column: str) -> bool:
    """Whether a provider can fill that column or list table at all; true for providers no longer known.

    `connection=busy` asks whether it can say that of a call.
    """
    known = discover().get(provider)
    if known is None or not known.sends:
        return True
    if column.startswith(_OF_CONNECTION):
        return column.removeprefix(_OF_CONNECTION) in known.connections
    if column == "result":
        return known.judges or not known.sends.isdisjoint(("appointments", "disposition"))
    return column in known.sends


def iso(moment: Micros) -> str:
    """A time as text that DuckDB casts to TIMESTAMP, in UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).strftime("%Y-%m-%d %H:%M:%S.%f")


_OF_CONNECTION = "connection="
_MEASURED = tuple(
    "agent_id direction status end_call_reason started_at ended_at duration_s caller_phone caller_name caller_email "
    "summary transcript recording_url sentiment disposition intent urgency tags campaign cost_usd".split()
)
"""Columns of a call whose completeness is measured."""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _never_sent() -> str:
    """The condition that leaves out the fields which a provider does not send: those are not missing."""
    parts = [
        f"NOT (provider = {_quoted(name)} AND field IN ({', '.join(_quoted(column) for column in lacking)}))"
        for name in discover()
        if (lacking := [column for column in _MEASURED if not sends(name, column)])
    ]
    return " AND ".join(parts) or "true"


# Who hangs up on an agent, what it handled alone, and whom the call was about: said once, for every metric.
_EVERY_CALL = (
    f"(SELECT * EXCLUDE (number), {CONTACT} AS contact, "
    "coalesce(ended_by = 'caller' AND duration_s < 10, false) AS hung_up_early, "
    "NOT transferred AND ended_by NOT IN ('system', 'transfer') AND NOT hung_up_early AS contained, "
    f"{OPTED_OUT} AS opted_out FROM (SELECT *, {OUTSIDE_NUMBER} AS number FROM calls WHERE excluded IS NULL))"
)
_DIMENSIONS = frozenset(
    "provider org agent_id campaign direction status end_call_reason connection ended_by result".split()
)
_CALL = _DIMENSIONS | frozenset(
    "agent_name custom_end_call_reason disposition sentiment intent urgency trust conflict transferred transferred_to "
    "transfer_reason".split()
)
_LISTED = "JOIN calls USING (provider, org, call_id) WHERE calls.excluded IS NULL"

RELATIONS: Mapping[str, Relation] = MappingProxyType(
    {
        "calls": Relation("counted_at", _CALL, _EVERY_CALL),
        "excluded_calls": Relation(
            "counted_at", _CALL | {"excluded"}, "(SELECT * FROM calls WHERE excluded IS NOT NULL)"
        ),
        "call_fields": Relation(
            "counted_at",
            _CALL | {"field"},
            "(SELECT *, unnest([" + ", ".join(_quoted(name) for name in _MEASURED) + "]) AS field, "
            "unnest([" + ", ".join(f"{name} IS NOT NULL" for name in _MEASURED) + "]) AS filled "
            "FROM calls WHERE excluded IS NULL)",
            _never_sent(),
        ),
        "call_actions": Relation(
            "counted_at",
            _CALL | {"action", "action_type"},
            f'(SELECT calls.*, call_actions."name" AS action, action_type, error_message FROM call_actions {_LISTED})',
        ),
        "rollup_calls": Relation(
            "bucket_start",
            _DIMENSIONS,
            "rollup_calls",
            sums=("calls", "transferred", "booked", "duration_s_sum", "duration_n"),
            by_call=Relation(
                "bucket_start",
                _CALL,
                "(SELECT * REPLACE (CAST(transferred AS INTEGER) AS transferred), counted_at AS bucket_start, "
                "1 AS calls, CAST(EXISTS (SELECT 1 FROM appointments AS booking "
                "WHERE booking.provider = calls.provider AND booking.org = calls.org "
                "AND booking.call_id = calls.call_id) AS INTEGER) AS booked, "
                "CASE WHEN abs(duration_s) < 1e9 THEN duration_s ELSE 0 END AS duration_s_sum, "
                "CASE WHEN abs(duration_s) < 1e9 THEN 1 ELSE 0 END AS duration_n FROM calls WHERE excluded IS NULL)",
            ),
        ),
        "rollup_analysis": Relation(
            "bucket_start",
            frozenset("provider org agent_id direction criterion result".split()),
            "rollup_analysis",
            sums=("calls",),
            by_call=Relation(
                "bucket_start",
                _CALL | {"criterion"},
                "(SELECT calls.* EXCLUDE (result), criterion, call_analysis.result, counted_at AS bucket_start, "
                f"1 AS calls FROM call_analysis {_LISTED})",
            ),
        ),
        "rollup_variables": Relation(
            "bucket_start",
            frozenset("provider org agent_id direction name".split()),
            "rollup_variables",
            sums=("calls", "collected", "filled"),
            by_call=Relation(
                "bucket_start",
                _CALL | {"name"},
                '(SELECT calls.* EXCLUDE (agent_id), call_variables.agent_id, "name", counted_at AS bucket_start, '
                "1 AS calls, CAST(collected AS INTEGER) AS collected, "
                f"CAST({FILLED} AS INTEGER) AS filled "
                f"FROM call_variables {_LISTED})",
            ),
        ),
        "deliveries": Relation("received_at", frozenset("provider source verdict reason trust".split()), "deliveries"),
        "other_events": Relation("happened_at", frozenset("provider org source event trust".split()), "other_events"),
    }
)
"""What a metric's header may name in `from`.

The rows of `calls` have, beside the columns of the table: `contact`, the outside number in one spelling, null where it
is withheld; `hung_up_early`, by the caller within 10 seconds; `contained`, handled by the agent to the end;
`opted_out`, by disposition or tags.
"""

EVERY_CALL = f"SELECT * FROM {_EVERY_CALL}"
"""All calls, whatever the filters say: for metrics that look for a caller's other calls."""
