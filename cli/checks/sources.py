"""A signed round trip for each source, without leaving a trace in any number.

In this process: signed and verified as ingest does it. At the running ingest, and once more under the
public address where that is another one: a signed GET, which is answered whether it is proved and stored nowhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx

from calls.model import Delivery, Notice, Verdict
from calls.provider import named
from calls.settings import Source
from calls.signing import TIMESTAMP_OUTSIDE_WINDOW, sign
from cli.check import Finding, Level, Patient
from cli.probe import State

ANSWER_S = 2.0
"""A call that waits is to be answered within this time."""
TIMEOUT_S = 5.0
_REMEDIES = {TIMESTAMP_OUTSIDE_WINDOW: "Set this machine's clock by NTP, or raise inboundflow_tolerance_s."}
"""By a refusal's reason, where the secret is not at fault."""


def check(patient: Patient) -> Iterator[Finding]:
    """Each source in turn."""
    settings = patient.settings
    for source in settings.sources.values():
        yield _signed_here(patient, source)
        yield from _refused(patient, source)
    if patient.ingest.state is State.READY:
        for source in settings.sources.values():
            yield _signed_there(source, settings.ingest_url, public=False)
            if patient.ask_inbound and named(source.provider).answers_inbound:
                yield _inbound_there(source, settings.ingest_url)
    yield from _public(patient)
    if not patient.ask_inbound and any(named(source.provider).answers_inbound for source in settings.sources.values()):
        yield _inbound_here()


def _signed_here(patient: Patient, source: Source) -> Finding:
    from ingest.gate import PROBE_ID, Counts, Gate

    if source.unsigned:
        return Finding(Level.OK, f"{source.name}: accepted unsigned, nothing to verify.")
    gate = Gate(source, Counts(), inboundflow_tolerance_s=patient.settings.inboundflow_tolerance_s)
    for number, secret in enumerate(source.secrets, 1):
        headers = sign(gate.scheme, secret, b"", now_s=patient.now // 1_000_000, signed_id=PROBE_ID)
        if not gate.probed([(name.encode(), value.encode()) for name, value in headers.items()], patient.now):
            return Finding(
                Level.WRONG,
                f"{source.name}: what is signed with secret {number} does not verify.",
                f"Set it again: calltally sources rotate {source.name}",
            )
    return Finding(Level.OK, f"{source.name}: what its secret signs verifies here.")


def _signed_there(source: Source, base: str, *, public: bool) -> Finding:
    from ingest.gate import PROBE_ID

    where = f"{base}/webhooks/{source.name}"
    scheme = named(source.provider).scheme
    headers = sign(scheme, source.secrets[0], b"", now_s=int(time.time()), signed_id=PROBE_ID) if source.secrets else {}
    try:
        answer = httpx.get(where, headers=headers, timeout=TIMEOUT_S, trust_env=public)
        said = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError) as error:
        return Finding(
            Level.NOTE if public else Level.WRONG,
            f"{source.name}: {where} does not answer as ingest does ({type(error).__name__}).",
            "From outside it may; try it from another machine." if public else "See ingest's log.",
        )
    proved = said.get("proved") if isinstance(said, dict) else None
    newest = "its newest secret" if len(source.secrets) > 1 else "its secret"
    if answer.status_code == 404:
        return Finding(
            Level.WRONG,
            f"{source.name}: nothing there at {where}.",
            "Ingest takes a changed calltally.toml within two seconds; one of the environment needs a restart.",
        )
    if proved is True:
        text = f"{source.name}: a request signed with {newest} is proved at {where}; it stored nothing."
        return Finding(Level.OK, text)
    if proved is False:
        return Finding(
            Level.WRONG,
            f"{source.name}: a request signed with {newest} is not proved at {where}: ingest has other settings.",
            "Restart ingest, or set the secret where ingest takes its settings from.",
        )
    if source.secrets and public and answer.status_code == 200:
        return Finding(
            Level.WARNING,
            f"{source.name}: the signature did not arrive at {where}: a proxy drops its header {scheme.headers[0]}.",
            "Let the proxy pass all headers; nginx drops those with underscores unless underscores_in_headers is on.",
        )
    if answer.status_code == 200:
        return Finding(Level.OK, f"{source.name}: {where} answers.")
    return Finding(Level.WRONG, f"{source.name}: {where} answers {answer.status_code}.", "See ingest's log.")


def _public(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    if settings.public_url == settings.ingest_url or patient.ingest.state is not State.READY:
        return
    for source in settings.sources.values():
        found = _signed_there(source, settings.public_url, public=True)
        yield found
        if found.level is Level.NOTE:
            return


def _refused(patient: Patient, source: Source) -> Iterator[Finding]:
    """What the door has refused since this source last delivered."""
    refused, last, reason, detail, delivered = 0, 0, None, None, False
    for record in patient.tail:
        if isinstance(record, Delivery) and record.source == source.name:
            refused, delivered = 0, True
        elif isinstance(record, Notice) and record.source == source.name and record.verdict is Verdict.REFUSED:
            refused, last = refused + record.count, record.received_at
            reason, detail = record.reason, record.detail or record.reason
    if refused:
        ago_min = max(0, patient.now - last) // 60_000_000
        secret = f"Compare the secret at the platform, then: calltally sources rotate {source.name}."
        yield Finding(
            Level.WARNING,
            f"{source.name}: {refused} requests were refused and none accepted since, the last {ago_min} min ago: "
            f"{detail}",
            f"{_REMEDIES.get(reason or '', secret)} What was refused waits in the quarantine and is verified again.",
        )
    elif not delivered:
        yield Finding(
            Level.NOTE,
            f"{source.name}: nothing among the newest {len(patient.tail):,} records came from it.",
            f"Paste {patient.settings.webhook_url(source.name)} there: calltally providers {source.provider}",
        )


def _inbound_here() -> Finding:
    from ingest.inbound import safe_answer

    if _carries_on(safe_answer()):
        return Finding(
            Level.OK,
            "The answer that we make to a waiting call (call_inbound) carries on with it. The running ingest was not "
            "asked, since that leaves a row; --inbound asks it.",
        )
    text = "Our answer to a waiting call is not complete: callers would be hung up on."
    return Finding(Level.WRONG, text, "Report this as a bug.")


def _inbound_there(source: Source, base: str) -> Finding:
    body = {"event": "call_inbound", "call_inbound": {"model_id": "doctor", "from_number": "", "to_number": ""}}
    started = time.monotonic()
    try:
        answer = httpx.post(f"{base}/webhooks/{source.name}", json=body, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        text = f"{source.name}: a waiting call gets no answer ({type(error).__name__})."
        return Finding(Level.WRONG, text, "Callers may be hung up on: see ingest's log.")
    took_s = time.monotonic() - started
    if answer.status_code == 200 and _carries_on(answer.content) and took_s < ANSWER_S:
        return Finding(Level.OK, f"{source.name}: a waiting call is carried on after {took_s * 1000:.0f} ms.")
    return Finding(
        Level.WRONG,
        f"{source.name}: a waiting call was answered {answer.status_code} after {took_s:.1f} s: {answer.text[:100]}",
        "Callers may be hung up on: see ingest's log.",
    )


def _carries_on(answer: bytes) -> bool:
    """Whether an answer names what to do; an empty object hangs up on the caller."""
    try:
        told = json.loads(answer)["call_inbound"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(told, dict) and "override_model_id" in told
