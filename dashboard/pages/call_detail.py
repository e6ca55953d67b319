"""One call: the answer first, then its timeline, transcript, analysis, variables, actions and raw deliveries."""

from __future__ import annotations

import json
from urllib.parse import quote, unquote

import pandas as pd
import streamlit as st

from dashboard import data, words

WHERE = "provider = $provider AND org = $org AND call_id = $call_id"
FACTS = {
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
    "tags": "Tags",
    "cost_usd": "Cost (USD)",
    "trust": "Trust",
}


def address(provider: str, org: str, call_id: str) -> str:
    """The call's part of the address bar."""
    return "/".join(quote(part, safe="") for part in (provider, org, call_id))


def render(name: str) -> None:
    """Draw the call of that address."""
    if st.button("All calls", icon=":material/arrow_back:", type="tertiary"):
        del st.query_params["call"]
        st.rerun()
    parts = [unquote(part) for part in name.split("/")]
    params = dict(zip(("provider", "org", "call_id"), parts, strict=False))
    rows = data.ask(f"SELECT * FROM calls WHERE {WHERE}", params) if len(parts) == 3 else pd.DataFrame()
    if rows.empty:
        st.info(
            "There is no such call. The address may be cut off, or the call was received by another installation.",
            icon=":material/search_off:",
        )
        return
    call = rows.iloc[0]
    zone = st.session_state.get("zone") or st.context.timezone or "UTC"
    _summary(call, zone)
    names = ["Transcript", "Timeline", "Analysis", "Variables", "Actions", "Bookings and leads", "Raw deliveries"]
    tabs = st.tabs(names)
    with tabs[0]:
        _transcript(call)
    with tabs[1]:
        _timeline(params, zone)
    with tabs[2]:
        _rows(
            "SELECT criterion, result, feedback FROM call_analysis WHERE " + WHERE + " ORDER BY criterion",
            params, call, "analysis", "analysis",
        )  # fmt: skip
    with tabs[3]:
        _rows(
            "SELECT name, value_text AS value, collected, agent_id FROM call_variables WHERE " + WHERE + " ORDER BY name",
            params, call, "collected variables", "variables",
        )  # fmt: skip
    with tabs[4]:
        _rows(
            "SELECT name, action_type, return_value::VARCHAR AS return_value, error_message, happened_at "
            "FROM call_actions WHERE " + WHERE + " ORDER BY happened_at, name",
            params, call, "actions", "actions",
        )  # fmt: skip
    with tabs[5]:
        _rows(
            "SELECT starts_at, ends_at, service, caller_name, calendar_event_id, link FROM appointments WHERE " + WHERE,
            params, call, "appointments", "appointments",
        )  # fmt: skip
        _rows(
            "SELECT name, phone, email, intent, urgency, interest, summary FROM leads WHERE " + WHERE,
            params, call, "leads", "leads",
        )  # fmt: skip
    with tabs[6]:
        _raw(params)


def _summary(call: pd.Series, zone: str) -> None:
    titles = data.titles()
    title = call["caller_name"] or words.phone(call["caller_phone"], masked=False) or call["call_id"]
    st.subheader(_literal(str(title)), anchor=False)
    st.caption(
        _literal(
            f"{titles.get(call['provider'], call['provider'])} · {words.local(call['counted_at'].to_pydatetime(), zone)} "
            f"{zone} · {call['call_id']}" + (f" · {call['org']}" if call["org"] else "")
        )
    )
    _warnings(call)
    columns = st.columns(5)
    length = words.duration(call["duration_s"]) if pd.notna(call["duration_s"]) else "not sent"
    agent = call["agent_name"] or call["agent_id"] or "not sent"
    direction = call["direction"] or "not sent"
    facts = (
        ("Reached", call["connection"].replace("_", " ")), ("Result", call["result"].replace("_", " ")),
        ("Length", length), ("Agent", agent), ("Direction", direction),
    )  # fmt: skip
    for column, (label, value) in zip(columns, facts, strict=True):
        with column:
            st.caption(label)
            st.text(value)
    if call["summary"]:
        st.text(call["summary"])
    _facts(call)


def _warnings(call: pd.Series) -> None:
    if call["conflict"]:
        st.warning(
            "Another finished version of this call arrived with a different meaning. Its platform signs only the call's id, "
            "so the first version counts; compare them under Raw deliveries.",
            icon=":material/warning:",
        )
    if call["excluded"]:
        st.info(f"Left out of all rates: {call['excluded']}.", icon=":material/filter_alt_off:")


def _facts(call: pd.Series) -> None:
    known = {
        label: str(", ".join(call[name]) if name == "tags" else call[name])
        for name, label in FACTS.items()
        if not _absent(call[name])
    }
    if call["caller_phone"]:
        known["Phone"] = words.phone(call["caller_phone"], masked=False)
    if call["caller_email"]:
        known["Email"] = call["caller_email"]
    st.dataframe(pd.DataFrame({"": list(known), " ": list(known.values())}), hide_index=True, height="content")
    url = call["recording_url"]
    if url and url.startswith("https://"):
        st.link_button("Open the recording at the platform", url, icon=":material/play_circle:")
    elif url:
        st.caption("Recording (not a https address, so not linked):")
        st.text(url)


def _absent(value: object) -> bool:
    if value is None or value is pd.NA:
        return True
    if isinstance(value, float):
        return pd.isna(value)
    return hasattr(value, "__len__") and len(value) == 0


def _transcript(call: pd.Series) -> None:
    if not call["transcript"]:
        _nothing(call, "transcript", "transcript")
        return
    speaker = ""
    for line in str(call["transcript"]).strip().splitlines():
        who, separator, said = line.partition(":")
        if separator and who.strip().lower() in ("bot", "human", "assistant", "user", "agent", "caller"):
            speaker = "assistant" if who.strip().lower() in ("bot", "assistant", "agent") else "user"
        else:
            said = line
        if said.strip():
            with st.chat_message(speaker or "user"):
                st.text(said.strip())


def _timeline(params: dict[str, str], zone: str) -> None:
    rows = data.ask(
        "SELECT happened_at, received_at, event, source, trust, delivery_id FROM call_events WHERE "
        + WHERE
        + " ORDER BY happened_at, received_at, event_id",
        params,
    )
    for column in ("happened_at", "received_at"):
        rows[column] = [words.local(moment.to_pydatetime(), zone) for moment in rows[column]]
    st.dataframe(rows, hide_index=True, height="content")


def _rows(query: str, params: dict[str, str], call: pd.Series, what: str, column: str) -> None:
    rows = data.ask(query, params)
    if rows.empty:
        _nothing(call, what, column)
        return
    st.dataframe(rows, hide_index=True, height="content")


def _nothing(call: pd.Series, what: str, column: str) -> None:
    provider = call["provider"]
    if data.sends(provider, column):
        st.caption(f"No {what} for this call so far.")
    else:
        st.caption(f"Not available from {data.titles().get(provider, provider)}: it does not send {what}.")


def _raw(params: dict[str, str]) -> None:
    rows = data.ask(
        "SELECT event, position, event_id, data::VARCHAR AS data FROM call_events WHERE "
        + WHERE
        + " ORDER BY position",
        params,
    )
    for row in rows.itertuples():
        with st.expander(_literal(f"{row.event} · position {row.position}"), expanded=len(rows) == 1):
            st.code(
                json.dumps(json.loads(str(row.data)), indent=2, ensure_ascii=False), language="json", wrap_lines=True
            )


def _literal(text: str) -> str:
    """Text that Streamlit shows as it is: headings, captions and labels read Markdown otherwise."""
    return "".join("\\" + char if char in "\\`*_{}[]()#+-.!|~>$:<&" else char for char in text)
