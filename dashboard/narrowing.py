"""What narrows the list of calls, beside the filters of every page: names in the address, and their SQL. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from analytics.metric import FILLED, Parameter


class Narrow(NamedTuple):
    """One name in the address: how a person reads it, and what it asks of a call or of a row that belongs to one."""

    label: str
    condition: str
    """Where the value is one of `$value`; of a row named `item` where there is a table."""
    table: str = ""
    """Which list of the call must hold such a row; empty where the call itself is asked."""


NARROW: Mapping[str, Narrow] = {
    "connection": Narrow("Reached", "connection = $value"),
    "result": Narrow("Result", "result = $value"),
    "end_call_reason": Narrow("End-call reason", "end_call_reason = $value"),
    "status": Narrow("Status", "status = $value"),
    "criterion": Narrow("Criterion", "item.criterion = $value", "call_analysis"),
    "judged": Narrow("Judged", "item.result = $value", "call_analysis"),
    "variable": Narrow("Variable", 'item."name" = $value', "call_variables"),
    "filled": Narrow("Filled", f"{FILLED} = ($value = 'yes')", "call_variables"),
    "counted": Narrow("In the numbers", "(excluded IS NULL) = ($value = 'yes')"),
}
"""What an empty value is in the address, all calls, is no condition."""
COUNTED = {"counted": "yes"}
"""What leaves the calls that numbers are made of."""


def link(**values: str) -> str:
    """Where a part of a picture leads, as the end of an address; empty where a value is, since that narrows nothing."""
    return urlencode(values) if all(values.values()) else ""


def of_link(text: str) -> dict[str, str]:
    """The values of a `link`."""
    return dict(parse_qsl(text))


def conditions(values: Mapping[str, str]) -> tuple[list[str], dict[str, Parameter]]:
    """The SQL conditions on `calls` that leave the calls meant, to be joined by AND, and their parameters.

    What is asked of a list is asked of one row of it: the criterion that was judged so.
    """
    asked = {name: value for name, value in values.items() if value}
    found, of_lists = [], dict[str, list[str]]()
    for name in asked:
        condition = NARROW[name].condition.replace("$value", f"$narrow_{name}")
        of_lists.setdefault(NARROW[name].table, []).append(condition)
    for table, wanted in of_lists.items():
        found += [_one_of(table, wanted)] if table else wanted
    return found, {f"narrow_{name}": value for name, value in asked.items()}


def _one_of(table: str, wanted: Sequence[str]) -> str:
    return (
        f"EXISTS (SELECT 1 FROM {table} AS item WHERE item.provider = calls.provider AND item.org = calls.org "
        f"AND item.call_id = calls.call_id AND {' AND '.join(wanted)})"
    )
