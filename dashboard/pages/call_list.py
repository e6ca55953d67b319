"""Calls: find one among many, and see all that is known about it; the address leads back to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import streamlit as st

from analytics.contact import OUTSIDE_NUMBER
from analytics.metric import RELATIONS, Filters, Parameter
from dashboard import address, charts, data, narrowing, part, words
from dashboard.empty import nothing_received, why_empty
from dashboard.filters import kept, pick
from dashboard.live import heading
from dashboard.narrowing import NARROW
from dashboard.pages import call_detail
from dashboard.view import View, line

ROWS_A_PAGE = 15
WORDS_MOST = 8
DATED_AFTER = timedelta(days=180)
"""A call that is older is told with its year: the same day comes every year."""
DIGITS_LEAST = 4
"""Fewer digits than these are in almost every number; they are searched as words."""
SORTS = {
    "newest": ("Newest first", "counted_at DESC, call_id"),
    "oldest": ("Oldest first", "counted_at, call_id"),
    "longest": ("Longest first", "duration_s DESC NULLS LAST, counted_at DESC, call_id"),
    "changed": ("Last changed first", "last_received_at DESC, call_id"),
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "connection": charts.CONNECTIONS,
    "result": {
        "met": "met",
        "partly": "partly",
        "not_met": "not met",
        "not_applicable": "not applicable",
        "unknown": "unknown",
    },
    "judged": {**{value: word for value, word, _ in charts.RESULTS}, "not_applicable": "not applicable"},
    "filled": {"yes": "with a value", "no": "empty"},
    "counted": {"yes": "counted", "no": "left out"},
}
"""What narrows by one of few values: each with its word; all others narrow by what the store holds."""
IN_LISTS = {"criterion": ("criterion", "rollup_analysis"), "variable": ("name", "rollup_variables")}
"""Which column of which roll-up holds the values of what narrows by a list of the call."""
SHOWN_WITH = {"judged": "criterion", "filled": "variable", "counted": "counted"}
"""What is offered only where the other one, or itself, narrows."""
TONES = {
    "person": "good", "machine": "middle", "failed": "bad", "met": "good", "partly": "middle", "not_met": "bad",
}  # fmt: skip
READ = (
    "provider, org, call_id, counted_at, coalesce(agent_name, agent_id) AS agent, direction, connection, result, "
    f"end_call_reason, duration_s, caller_name, {OUTSIDE_NUMBER} AS phone, transferred, conflict, excluded"
)
SEARCHED = ("call_id", "caller_name", "caller_email", "agent_name", "summary", "transcript")
NUMBERS = ("caller_phone", "callee_phone")
COLUMNS = (
    part.Column(title="When"),
    part.Column(title="Person"),
    part.Column(title="Agent", narrow=True),
    part.Column(title="Platform", narrow=True),
    part.Column(title="Reached"),
    part.Column(title="Length", number=True, narrow=True),
    part.Column(title="Result"),
    part.Column(title="Ended", narrow=True),
    part.Column(title="Note", narrow=True),
)


def render() -> None:
    """Draw the list, or the one call that the address names."""
    if called := address.read("call"):
        call_detail.render(called)
        return
    choices = data.choices()
    head, choose = st.columns([1, 2], vertical_alignment="bottom")
    with choose:
        view = pick(choices, data.titles(), datetime.now(UTC))
    with head:
        heading("Calls", line(view, choices.agents))
    if nothing_received():
        return
    where, params, order = _narrowed(view.filters)
    counting = f"SELECT count(*) AS n FROM calls WHERE {where}"
    # The first page is fetched while the calls are counted; which others there are is known after that.
    first = [] if address.read(address.PAGE) else [(_rows_of(where, order, 1), params)]
    data.ahead([(counting, params), *first])
    found = int(str(data.ask(counting, params)[0]["n"]))
    if not found:
        also = " ".join(name for name in ("find", *NARROW) if address.read(name))
        why_empty(view, "calls", key="calls", also=also)
        return
    _list(view, where, params, order, found)


class Condition(NamedTuple):
    """What narrows the list, as SQL and its parameters."""

    sql: str
    params: Mapping[str, Parameter]


def searched(text: str) -> Condition | None:
    """What finds a call by a phone number in any spelling, or by words that all occur in it; None for no text.

    Words are looked for in name, e-mail, id, agent, summary and transcript.
    """
    said = text.lower().split()[:WORDS_MOST]
    if not said:
        return None
    params: dict[str, Parameter] = {}
    all_words = " AND ".join(_said(word, f"find_{place}", params) for place, word in enumerate(said))
    either = [f"({all_words})", *(_dialled(number, params) for number in _digits(text))]
    return Condition(f"({' OR '.join(either)})", params)


def _said(word: str, name: str, params: dict[str, Parameter]) -> str:
    """That a word, which has no space, is in one of the columns: faster than to join them and lower all."""
    if "%" in word or "_" in word:
        params[name] = word
        return f"({' OR '.join(f'contains(lower({column}), ${name})' for column in SEARCHED)})"
    params[name] = f"%{word}%"
    return f"({' OR '.join(f'{column} ILIKE ${name}' for column in SEARCHED)})"


def _dialled(number: str, params: dict[str, Parameter]) -> str:
    """That one of the numbers has these digits in a row; first, as it is cheap, that it has them in this order."""
    params |= {"find_number": number, "find_digits": f"%{'%'.join(number)}%"}
    each = (
        f"{column} LIKE $find_digits AND contains(regexp_replace({column}, '[^0-9]', '', 'g'), $find_number)"
        for column in NUMBERS
    )
    return f"({' OR '.join(each)})"


def _digits(text: str) -> list[str]:
    """The digits that numbers so written have in common: +49 (0)30 1234, 0049 30 1234 and 030 1234 are one number."""
    if not re.fullmatch(r"[\d\s()+./\-\u2010-\u2015]+", text):
        return []
    digits = re.sub(r"\D", "", re.sub(r"\(\s*0\s*\)", "", text))
    bare = digits.lstrip("0")
    # Zeros in front may be a prefix that the other spelling lacks, or belong to the last digits of a number: 0165.
    found = bare if len(bare) >= DIGITS_LEAST else digits
    return [found] if len(found) >= DIGITS_LEAST else []


def _narrowed(filters: Filters) -> tuple[str, dict[str, Parameter], str]:
    conditions, params = filters.conditions(RELATIONS["calls"])
    with st.container(horizontal=True, key="narrow", gap="small"):
        text = address.type_in("Find", "find", placeholder="number, name, id, words said")
        narrows, values = narrowing.conditions({name: _choose(name) for name in NARROW if _offered(name)})
        sort = address.choose("Sort", "sort", list(SORTS), first="newest", show=lambda key: SORTS[key][0])
    conditions += narrows
    params |= values
    if (condition := searched(text)) is not None:
        conditions.append(condition.sql)
        params |= condition.params
    return " AND ".join(conditions), params, SORTS[sort][1]


def _offered(name: str) -> bool:
    return name not in SHOWN_WITH or bool(address.read(name) or address.read(SHOWN_WITH[name]))


def _choose(name: str) -> str:
    return address.choose(NARROW[name].label, name, ["", *_values(name)], show=partial(_shown, name))


def _values(name: str) -> list[str]:
    return list(WORDS.get(name, ())) or data.value_choices(address.read(name), *IN_LISTS.get(name, (name,)))


def _shown(name: str, value: str) -> str:
    return words.label(WORDS.get(name, {}).get(value, value), 40) if value else "All"


def _list(view: View, where: str, params: dict[str, Parameter], order: str, found: int) -> None:
    pages = -(-found // ROWS_A_PAGE)
    page = address.page(pages)
    rows = data.ask(_rows_of(where, order, page), params)
    along = {**kept(), **{name: address.read(name) for name in ("find", *NARROW, "sort", address.PAGE)}}
    now = datetime.now(UTC)
    shown = [_row(row, view.filters.zone, now, along) for row in rows]
    # Only on top of the newest calls does a new row mean a new call.
    mark = f"{where}{params}" if page == 1 and order == SORTS["newest"][1] else ""
    part.table("calls", COLUMNS, shown, label="Calls", mark_new=_without_time(mark, params))
    left, right = st.columns([2, 3], vertical_alignment="center")
    with left:
        st.caption(f"{words.counted(found, 'call', 'calls')}; a row opens the call")
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        if pages > 1:
            address.turn(pages)


def _rows_of(where: str, order: str, page: int) -> str:
    return (
        f"SELECT {READ} FROM calls WHERE {where} ORDER BY {order} LIMIT {ROWS_A_PAGE} OFFSET {(page - 1) * ROWS_A_PAGE}"
    )


def _without_time(mark: str, params: Mapping[str, Parameter]) -> str:
    """The same list a quarter of an hour later is the same list."""
    for name in ("start", "end"):
        mark = mark.replace(str(params[name]), "")
    return mark


def _row(row: Mapping[str, object], zone: str, now: datetime, along: Mapping[str, str]) -> part.Row:
    called = call_detail.address_of(str(row["provider"]), str(row["org"]), str(row["call_id"]))
    return part.Row(
        id=called,
        href=address.link("calls", **{**along, "call": called}),
        cells=[
            _when(row["counted_at"], zone, now),
            _person(row),
            part.Cell(text=_text(row["agent"])),
            part.Cell(text=data.titles().get(str(row["provider"]), str(row["provider"]))),
            part.Cell(
                text=_shown("connection", str(row["connection"])),
                tone=TONES.get(str(row["connection"]), "quiet"),
                hint=_text(row["direction"]),
            ),
            part.Cell(text=_length(row["duration_s"])),
            part.Cell(text=_shown("result", str(row["result"])), tone=TONES.get(str(row["result"]), "quiet")),
            part.Cell(
                text=_text(row["end_call_reason"]), hint=words.PLAIN_REASONS.get(_text(row["end_call_reason"]), "")
            ),
            part.Cell(text=_note(row)),
        ],
    )


def _when(moment: object, zone: str, now: datetime) -> part.Cell:
    if not isinstance(moment, datetime):
        return part.Cell(text="")
    at = moment.replace(tzinfo=UTC)
    exact = words.local(at, zone, year=now - at > DATED_AFTER)
    if timedelta(0) <= now - at < timedelta(days=1):
        return part.Cell(at=round(at.timestamp() * 1000), hint=f"{exact} {zone}")
    return part.Cell(text=exact, hint=f"{at:%Y-%m-%d} {zone}")


def _person(row: Mapping[str, object]) -> part.Cell:
    name, number = _text(row["caller_name"]), words.phone(_text(row["phone"]) or None)
    # Where a platform knows no name it may send the number as one.
    if sum(char.isdigit() for char in name) >= DIGITS_LEAST and not any(char.isalpha() for char in name):
        name = words.phone(re.sub(r"[^\d+]", "", name))
    if not name or not number or name == number:
        return part.Cell(text=name or number or "unknown")
    return part.Cell(text=name, below=number)


def _length(seconds: object) -> str:
    return words.duration(seconds) if isinstance(seconds, float | int) else ""


def _text(value: object) -> str:
    """A column's text as a label; empty where there is none."""
    return words.label(value) if isinstance(value, str) and value else ""


def _note(row: Mapping[str, object]) -> str:
    notes = [
        "transferred" if row["transferred"] is True else "",
        "conflict" if row["conflict"] is True else "",
        _text(row["excluded"]),
    ]
    return ", ".join(note for note in notes if note)
