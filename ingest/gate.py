"""One source as the door sees it: how its deliveries are proved, what of them is kept, and what was counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

from calls.errors import SignatureRejected
from calls.journal import NewDelivery
from calls.model import Micros, Trust
from calls.provider import Provider, named
from calls.settings import Source
from calls.signing import Headers, Scheme, Verified, verify

ALWAYS_KEPT = ("content-type", "user-agent")
MICROS_PER_S = 1_000_000
PROBE_ID = b"\xffprobe"
"""What a probe signs where the platform signs an id: no call can have it, since no JSON text can hold it."""


@dataclass(slots=True)
class Counts:
    """What a source has sent since this process started; outlives a change of its secrets."""

    accepted: int = 0
    repeated: int = 0
    inbound: int = 0
    probes: int = 0
    """GETs and empty POSTs."""
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""
    bytes: int = 0
    by_older_secret: int = 0
    quarantined: int = 0
    quarantine_full: int = 0
    last_received_at: Micros = 0


class Gate:
    """Proves what claims to come from one source."""

    __slots__ = ("counts", "kept", "name", "org", "provider", "scheme", "source")

    def __init__(self, source: Source, counts: Counts, *, inboundflow_tolerance_s: int) -> None:
        self.source = source
        self.name = source.name
        self.org = source.org
        self.provider: Provider = named(source.provider)
        self.scheme = _with_tolerance(self.provider, inboundflow_tolerance_s)
        self.kept = {name.encode(): name for name in (*ALWAYS_KEPT, *self.provider.kept_headers)}
        self.counts = counts

    def prove(self, headers: Headers, body: bytes, received_at: Micros) -> Verified:
        """The delivery's trust. Raises SignatureRejected, or PayloadMalformed where the signed id is unreadable."""
        if self.source.unsigned:
            return Verified(Trust.D, 0)
        signed_id = self.provider.signed_id(body) if self.provider.signed_id is not None else b""
        return self.proves(headers, body, received_at, signed_id)

    def proves(self, headers: Headers, body: bytes, received_at: Micros, signed_id: bytes) -> Verified:
        """The same where the signed id is already known. Raises SignatureRejected."""
        return verify(
            self.scheme, self.source.secrets, headers, body, now_s=received_at / MICROS_PER_S, signed_id=signed_id
        )

    def probed(self, headers: Headers, at: Micros) -> bool | None:
        """Whether a request without a body, as `calltally doctor` sends it, is signed rightly; None if unsigned."""
        if self.source.unsigned:
            return None
        try:
            self.proves(headers, b"", at, PROBE_ID)
        except SignatureRejected as error:
            return None if error.code == "signature_missing" else False
        return True


def new_delivery(
    gate: Gate, headers: Headers, body: bytes, received_at: Micros, trust: Trust, identity: str
) -> NewDelivery:
    """What the journal is given."""
    kept = gate.kept
    return NewDelivery(
        source=gate.name,
        provider=gate.provider.name,
        org=gate.org,
        body=body,
        headers={kept[name]: value.decode("latin-1") for name, value in headers if name in kept},
        received_at=received_at,
        trust=trust,
        id=identity,
    )


def _with_tolerance(provider: Provider, inboundflow_tolerance_s: int) -> Scheme:
    if provider.name != "inboundflow":
        return provider.scheme
    return dataclasses.replace(provider.scheme, tolerance_s=inboundflow_tolerance_s)
