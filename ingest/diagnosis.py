"""Why a signature does not match: what was probably changed, mixed up or pasted wrongly.

A diagnosis is only ever a hint in log and notice. Whatever it finds, the request stays refused: a body that matches
after being rewritten is not the body that was signed.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Iterator, Mapping

from calls.errors import PayloadMalformed, SignatureRejected
from calls.payload import parse
from calls.provider import Provider, discover
from calls.settings import FILE_NAME, secret_variable
from calls.signing import TIMESTAMP_OUTSIDE_WINDOW, Headers, verify
from ingest.gate import Gate

BODY_BYTES = 256 * 1024
"""Longer bodies are not tried in variations; a proxy that rewrites them rewrites short ones, too."""


def diagnose(gate: Gate, gates: Mapping[str, Gate], headers: Headers, body: bytes, error: SignatureRejected) -> str:
    """The refusal's message with what would have matched, or with the setting to look at."""
    if error.code == TIMESTAMP_OUTSIDE_WINDOW:
        # The signature is right: everything that is tried below would match, and say something untrue.
        return f"{error.message} How much is allowed is the setting inboundflow_tolerance_s."
    for hint in _hints(gate, gates, headers, body, error):
        return f"{error.message} {hint}"
    return f"{error.message} Compare the secret in {_where(gate)} with the one at {gate.provider.title}."


def _where(gate: Gate) -> str:
    """Where the secrets of a source stand."""
    return f"[sources.{gate.name}] of {FILE_NAME} (or {secret_variable(gate.name)})"


def _hints(
    gate: Gate, gates: Mapping[str, Gate], headers: Headers, body: bytes, error: SignatureRejected
) -> Iterator[str]:
    if len(body) <= BODY_BYTES:
        yield from _hints_that_match(gate, gates, headers, body)
    if error.code == "signature_missing":
        yield from _hints_at_lost_header(gate, headers)


def _hints_that_match(gate: Gate, gates: Mapping[str, Gate], headers: Headers, body: bytes) -> Iterator[str]:
    secrets = gate.source.secrets
    for changed, why in _rewritten(body):
        if _matches(gate.provider, secrets, headers, changed):
            yield why
    for secret, why in _respelled(secrets):
        if _matches(gate.provider, (secret,), headers, body):
            yield why
    for other in gates.values():
        if other is not gate and _matches(other.provider, other.source.secrets, headers, body):
            yield f"It matches the source '{other.name}': is this address set at the wrong place?"
    for provider in discover().values():
        if provider is not gate.provider and _matches(provider, secrets, headers, body):
            yield f"It matches as a signature of {provider.title}: check the source's provider."


def _hints_at_lost_header(gate: Gate, headers: Headers) -> Iterator[str]:
    expected = {name.replace("_", "-") for name in gate.scheme.headers}
    for name, _ in headers:
        text = name.decode("latin-1")
        if text.replace("_", "-") in expected:
            yield f"The header '{text}' arrived in another spelling: a proxy may rename it."
        elif "signature" in text:
            yield f"The header '{text}' looks like another platform's signature: check the source's provider."
    if any("_" in name for name in gate.scheme.headers):
        yield (
            f"If {gate.provider.title} does sign, a proxy may drop headers with underscores "
            "(nginx: underscores_in_headers on)."
        )
    yield f"Is signing switched on at {gate.provider.title}, with the secret of the source '{gate.name}'?"


def _rewritten(body: bytes) -> Iterator[tuple[bytes, str]]:
    newline = "It matches {} a line break at the end: something between sender and here changes the body."
    yield body + b"\n", newline.format("with")
    yield body.rstrip(b"\r\n"), newline.format("without")
    try:
        value = parse(body).value
    except PayloadMalformed:
        return
    why = (
        "It matches the body written anew as JSON: a proxy or automation in between rewrites it; pass it on unchanged."
    )
    for ascii_only in (False, True):
        for separators in ((",", ":"), (", ", ": ")):
            text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
            yield text.encode("utf-8", "surrogatepass"), why


def _respelled(secrets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for secret in secrets:
        for changed, what in ((secret.strip(), "blanks around it"), (secret.strip("\"'"), "quotation marks around it")):
            if changed and changed != secret:
                yield changed, f"It matches the source's secret without the {what}: remove them from the setting."
        for decode, what in ((bytes.fromhex, "hexadecimal"), (_base64, "base64")):
            try:
                yield decode(secret).decode(), f"It matches the secret read as {what}: set the secret as it is used."
            except (ValueError, binascii.Error):
                continue


def _base64(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def _matches(provider: Provider, secrets: tuple[str, ...], headers: Headers, body: bytes) -> bool:
    scheme = dataclasses.replace(provider.scheme, tolerance_s=None)
    try:
        signed_id = provider.signed_id(body) if provider.signed_id is not None else b""
        verify(scheme, secrets, headers, body, now_s=0, signed_id=signed_id)
    except (SignatureRejected, PayloadMalformed):
        return False
    return True
