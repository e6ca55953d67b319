"""One call: the answer first, then everything that belongs to it, down to the raw deliveries."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

import streamlit as st

from analytics.contact import OUTSIDE_NUMBER
from dashboard import address, data, part, words
from dashboard.charts import CONNECTIONS
from dashboard.filters import zone as chosen_zone
from dashboard.inert import literal

WHERE = "provider = $provider AND org = $org AND call_id = $call_id"
RAW_SHOWN = 100_000
"""Characters of a body that are put on the page; the rest is in the file."""
RAW_MOST = 20
FACTS = {
    "direction": "Direction",
    "agent": "Agent",
    "status": "Status",
    "end_call_reason": "End-call reason",
    "custom_end_call_reason": "Configured reason",
    "ended_by": "Ended by",
    "campaign": "Campaign",
    "disposition": "Disposition",
    "sentiment": "Sentiment",
    "intent": "Intent",
    "urgency": "Urgency",
    "transferred_to": "Transferred to",
    "transfer_reason": "Transfer reason",
    "caller_email": "Email",
}
TRUST = {
    "A": "body and time signed",
    "B": "body signed",
    "C": "only the call's id signed",
    "D": "not signed, allowed by configuration",
}
RESULT_WORDS = {"true": ("met", "good"), "partial": ("partly", "middle"), "false": ("not met", "bad")}
SPEAKERS = {
    "bot": "agent", "agent": "agent", "assistant": "agent", "ai": "agent", "staff": "agent",
    "human": "caller", "user": "caller", "caller": "caller", "customer": "caller",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Called:
    """One call's row and how to ask for what belongs to it."""

    row: Mapping[str, object]
    params: dict[str, str]
    zone: str

    def text(self, column: str) -> str:
        """A column's text; empty where there is none."""
        value = self.row[column]
        return value if isinstance(value, str) else ""

    def ask(self, columns: str, table: str, order: str, also: str = "") -> list[dict[str, object]]:
        """Rows of a table that belong to the call. Raises QueryError."""
        params = dict(self.params)
        if also:
            params |= {"first": str(self.row["first_received_at"]), "last": str(self.row["last_received_at"])}
        return data.ask(f"SELECT {columns} FROM {table} WHERE {WHERE}{also} ORDER BY {order}", params)

    def moment(self, value: object, *, year: bool = False) -> str:
        """A time in the chosen zone; empty where there is none."""
        return words.local(value, self.zone, year=year) if isinstance(value, datetime) else ""


def address_of(provider: str, org: str, call_id: str) -> str:
    """The call's part of the address bar."""
    return "/".join(quote(part, safe="") for part in (provider, org, call_id))


def render(name: str) -> None:
    """Draw the call of that address."""
    st.button("All calls", icon=":material/arrow_back:", type="tertiary", on_click=_back)
    parts = [unquote(part) for part in name.split("/")]
    params = dict(zip(("provider", "org", "call_id"), parts, strict=False))
    columns = f"*, {OUTSIDE_NUMBER} AS phone, coalesce(agent_name, agent_id) AS agent"
    rows = data.ask(f"SELECT {columns} FROM calls WHERE {WHERE}", params) if len(parts) == 3 else []
    if not rows:
        st.info(
            "There is no such call. The address may be cut off, or the call was received by another installation.",
            icon=":material/search_off:",
        )
        return
    call = Called(rows[0], params, chosen_zone())
    _summary(call)
    chosen = address.section("What to show", "show", list(SECTIONS), show=lambda key: SECTIONS[key][0])
    SECTIONS[chosen][1](call)


def _back() -> None:
    address.write(call="", show="")


def _summary(call: Called) -> None:
    number = words.phone(call.text("phone") or None, masked=False)
    title = words.label(call.text("caller_name")) if call.text("caller_name") else number or call.text("call_id")
    platform = data.titles().get(call.text("provider"), call.text("provider"))
    about = [
        platform,
        f"{call.moment(call.row['counted_at'], year=True)} {call.zone}",
        words.label(call.text("call_id"), 120),
    ]
    if call.text("org"):
        about.append(words.label(call.text("org")))
    part.heading(title, " · ".join(about), zone=call.zone)
    _warnings(call)
    with st.container(border=True):
        if summary := call.text("summary"):
            part.text("summary", _readable(summary))
        part.facts("facts", _facts(call, number))
        _recording(call.text("recording_url"))


def _warnings(call: Called) -> None:
    if call.row["conflict"]:
        st.warning(
            "Another finished version of this call arrived with a different meaning. Its platform signs only the "
            "call's id, so the first version counts; compare them under Raw deliveries.",
            icon=":material/warning:",
        )
    if call.text("excluded"):
        st.info(f"Left out of all numbers: a {literal(call.text('excluded'))} call.", icon=":material/filter_alt_off:")


def _facts(call: Called, number: str) -> dict[str, part.Cell | str]:
    result = call.text("result")
    shown: dict[str, part.Cell | str] = {
        "Reached": part.Cell(
            text=CONNECTIONS.get(call.text("connection"), call.text("connection")), tone=_tone(call.text("connection"))
        ),
        "Result": part.Cell(text=result.replace("_", " "), tone=_tone(result)),
        "Length": _length(call),
        "Phone": number or _absent(call, "caller_phone"),
    }
    for column, label in FACTS.items():
        if text := call.text(column):
            shown[label] = part.Cell(text=words.label(text, 300), hint=words.PLAIN_REASONS.get(text, ""))
    tags = call.row["tags"]
    if isinstance(tags, list):
        shown["Tags"] = words.label(", ".join(str(tag) for tag in tags), 300)
    cost = call.row["cost_usd"]
    if isinstance(cost, float):
        shown["Cost"] = f"{cost:,.4f} USD"
    shown["Proof"] = part.Cell(
        text=TRUST.get(call.text("trust"), call.text("trust")), hint=f"trust {call.text('trust')}"
    )
    return shown


def _tone(value: str) -> str:
    return {
        "person": "good", "machine": "middle", "failed": "bad", "met": "good", "partly": "middle", "not_met": "bad",
    }.get(value, "quiet")  # fmt: skip


def _length(call: Called) -> str:
    seconds = call.row["duration_s"]
    return words.duration(seconds) if isinstance(seconds, float) else _absent(call, "duration_s")


def _absent(call: Called, column: str) -> str:
    platform = data.titles().get(call.text("provider"), call.text("provider"))
    return "not sent" if data.sends(call.text("provider"), column) else f"not available from {platform}"


def _recording(url: str) -> None:
    if url.startswith("https://"):
        st.link_button("Open the recording at the platform", url, icon=":material/play_circle:")
    elif url:
        st.caption("Recording, as sent; it is no https address and so no link:")
        part.text("recording", words.label(url, 500))


def _transcript(call: Called) -> None:
    spoken = turns(call.text("transcript"))
    if not spoken:
        _nothing(call, "transcript", "transcript")
        return
    part.talk("transcript", spoken)


def turns(transcript: str) -> list[tuple[str, str]]:
    """Who said what; lines without a speaker go on with the one before, those of another name stand by themselves."""
    found: list[tuple[str, str]] = []
    for line in transcript.splitlines():
        who, colon, said = line.partition(":")
        speaker = SPEAKERS.get(who.strip().strip("*[]").lower()) if colon else None
        if speaker is not None:
            found.append((speaker, said.strip()))
        elif found and line.strip() and not (colon and _NAME.fullmatch(who.strip())):
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line.strip()}")
        elif line.strip():
            found.append(("", line.strip()))
    return [(who, _readable(said)) for who, said in found if said]


_NAME = re.compile(r"(?=.{1,40}$)[^\W\d_a-z][\w.'\u2019-]*( [\w.'\u2019-]+){0,3}")
"""What may be somebody's name before a colon: Hugo Ito. Their words are not the agent's, whoever it is."""


def _readable(text: str) -> str:
    return "\n".join(words.label(line, 20_000) for line in text.split("\n") if line)


def _timeline(call: Called) -> None:
    events = call.ask(
        "event, happened_at, received_at, source, trust, delivery_id", "call_events",
        "happened_at, received_at, event_id", _NARROWED,
    )  # fmt: skip
    columns = [
        part.Column(title=title, narrow=place > 2)
        for place, title in enumerate(("Happened", "Event", "Received", "Source", "Proof", "Delivery"))
    ]
    rows = [
        _row(
            place, call.moment(event["happened_at"]), event["event"], call.moment(event["received_at"]),
            event["source"], TRUST.get(str(event["trust"]), event["trust"]), event["delivery_id"],
        )
        for place, event in enumerate(events)
    ]  # fmt: skip
    part.table("timeline", columns, rows, label="Timeline")


def _analysis(call: Called) -> None:
    found = call.ask("criterion, result, feedback", "call_analysis", "criterion, result")
    if not found:
        _nothing(call, "analysis", "call_analysis")
        return
    rows = []
    for place, item in enumerate(found):
        text, tone = RESULT_WORDS.get(str(item["result"]), (_cell(item["result"]).replace("_", " "), "quiet"))
        row = _row(place, item["criterion"], text, item["feedback"])
        rows.append(part.Row(id=row["id"], cells=[row["cells"][0], part.Cell(text=text, tone=tone), row["cells"][2]]))
    columns = [part.Column(title="Criterion"), part.Column(title="Result"), part.Column(title="Feedback", wrap=True)]
    part.table("analysis", columns, rows, label="Analysis")


def _variables(call: Called) -> None:
    found = call.ask(
        "name, coalesce(value_text, value::VARCHAR) AS value, collected, agent_id", "call_variables", "name, agent_id"
    )
    if not found:
        _nothing(call, "collected variables", "call_variables")
        return
    collected = {True: "collected", False: "not collected"}
    rows = [
        _row(place, item["name"], item["value"], collected.get(bool(item["collected"])), item["agent_id"])
        for place, item in enumerate(found)
    ]
    columns = [
        part.Column(title="Variable"), part.Column(title="Value", wrap=True), part.Column(title="", narrow=True),
        part.Column(title="Agent", narrow=True),
    ]  # fmt: skip
    part.table("variables", columns, rows, label="Variables")


def _actions(call: Called) -> None:
    found = call.ask(
        "name, action_type, return_value::VARCHAR AS return_value, error_message, happened_at", "call_actions",
        "happened_at, name",
    )  # fmt: skip
    if not found:
        _nothing(call, "actions", "call_actions")
        return
    rows = [
        _row(
            place, item["name"], item["action_type"], item["return_value"], item["error_message"],
            call.moment(item["happened_at"]),
        )
        for place, item in enumerate(found)
    ]  # fmt: skip
    columns = [
        part.Column(title="Action"), part.Column(title="Kind", narrow=True), part.Column(title="Returned", wrap=True),
        part.Column(title="Error", wrap=True), part.Column(title="When", narrow=True),
    ]  # fmt: skip
    part.table("actions", columns, rows, label="Actions")


def _bookings(call: Called) -> None:
    booked = call.ask("starts_at, ends_at, service, caller_name, calendar_event_id, link", "appointments", "starts_at")
    if booked:
        columns = [part.Column(title=title) for title in ("Starts", "Ends", "Service", "For", "Calendar id", "Link")]
        rows = [
            _row(
                place, call.moment(item["starts_at"]), call.moment(item["ends_at"]), item["service"],
                item["caller_name"], item["calendar_event_id"], item["link"],
            )
            for place, item in enumerate(booked)
        ]  # fmt: skip
        part.table("appointments", columns, rows, label="Bookings")
    else:
        _nothing(call, "bookings", "appointments")
    leads = call.ask("name, phone, email, intent, urgency, interest, summary", "leads", "name, phone")
    if leads:
        titles = ("Lead", "Phone", "Email", "Intent", "Urgency", "Interest", "Summary")
        columns = [part.Column(title=title, wrap=title == "Summary") for title in titles]
        rows = []
        for place, item in enumerate(leads):
            phone = item["phone"] if isinstance(item["phone"], str) else None
            shown = {**item, "phone": words.phone(phone, masked=False)}
            rows.append(_row(place, *shown.values()))
        part.table("leads", columns, rows, label="Leads")
    else:
        _nothing(call, "leads", "leads")


def _raw(call: Called) -> None:
    found = call.ask(
        f"event, position, event_id, left(data::VARCHAR, {RAW_SHOWN}) AS shown, strlen(data::VARCHAR) AS size",
        "call_events", f"position LIMIT {RAW_MOST}", _NARROWED,
    )  # fmt: skip
    if call.row["event_count"] != len(found):
        st.caption(f"The first {len(found)} of {call.row['event_count']} deliveries.")
    for item in found:
        size = item["size"] if isinstance(item["size"], int) else 0
        title = f"{item['event']} · position {item['position']} · {words.count(size)} bytes"
        with st.expander(literal(title), expanded=len(found) == 1):
            st.code(readable_json(str(item["shown"])), language="json" if size < 20_000 else None, wrap_lines=True)
            if size > RAW_SHOWN:
                st.caption(f"The first {words.count(RAW_SHOWN)} of {words.count(size)} characters; all of it by SQL:")
                event_id = str(item["event_id"])
                st.code(f"SELECT data FROM call_events WHERE event_id = '{event_id}'", language="sql")


def readable_json(text: str) -> str:
    """JSON on several lines, its signs that hide or turn around what follows written as escapes."""
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return _INVISIBLE.sub(lambda found: "".join(f"\\u{ord(char):04x}" for char in found[0]), text)


_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
_NARROWED = " AND received_at BETWEEN CAST($first AS TIMESTAMP) AND CAST($last AS TIMESTAMP)"


def _row(place: int, *cells: object) -> part.Row:
    return part.Row(id=str(place), cells=[part.Cell(text=_cell(cell)) for cell in cells])


def _cell(value: object) -> str:
    if isinstance(value, str):
        return _readable(value[:20_000])
    return "" if value is None else str(value)


def _nothing(call: Called, what: str, column: str) -> None:
    platform = data.titles().get(call.text("provider"), call.text("provider"))
    if data.sends(call.text("provider"), column):
        st.caption(f"No {what} for this call so far.")
    else:
        st.caption(f"Not available from {literal(platform)}: it does not send {what}.")


SECTIONS: Mapping[str, tuple[str, Callable[[Called], None]]] = {
    "transcript": ("Transcript", _transcript),
    "timeline": ("Timeline", _timeline),
    "analysis": ("Analysis", _analysis),
    "variables": ("Variables", _variables),
    "actions": ("Actions", _actions),
    "bookings": ("Bookings and leads", _bookings),
    "raw": ("Raw deliveries", _raw),
}
"""Name in the address, label, and what draws it."""
