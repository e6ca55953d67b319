"""Webhook signatures as data: a `Scheme` says what is signed and how it is written; `sign` and `verify` follow from it.

A signature is accepted in one textual form only: its header must have one of the scheme's forms, byte for byte, and
the signature in it must be the text that we would have written ourselves, compared in constant time. So there is no
decoder to be lenient, and case, padding, white space or look-alike digits cannot make a second valid spelling.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import b2a_base64, hexlify
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from functools import lru_cache
from typing import NamedTuple

from calls.errors import SignatureRejected
from calls.model import Trust

TIMESTAMP_DIGITS_MAX = 16
ARRIVED_NAMES_MAX = 20

Headers = Sequence[tuple[bytes, bytes]]
"""Request headers as they arrived: lower-case names, repeated names kept apart."""
TIMESTAMP_OUTSIDE_WINDOW = "timestamp_outside_window"
"""The refusal of what is rightly signed, but too early or too late."""


class Part(StrEnum):
    """What of a request goes into the signature."""

    BODY = auto()
    TIMESTAMP = auto()
    ID = auto()


class Encoding(StrEnum):
    """How the bytes of the MAC are written: lower-case hex, or canonical base64 with its padding."""

    HEX = auto()
    BASE64 = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a platform signs. Raises ValueError for a description that contradicts itself."""

    headers: tuple[str, ...]
    """Accepted names of the signature header, in lower case; the first one is used when signing."""
    signed: tuple[Part | bytes, ...]
    """What is signed, in order; bytes stand for themselves."""
    encoding: Encoding
    trust: Trust
    forms: tuple[str, ...] = ("{signature}",)
    """Accepted forms of the header's value; `{timestamp}` where the header carries it. The first one signs."""
    timestamp_header: str | None = None
    timestamps_per_second: int = 1
    tolerance_s: int | None = None
    """How far the signed timestamp may be from our clock, both ways; None for any distance."""
    algorithm: str = "sha256"
    _names: frozenset[bytes] = field(init=False, repr=False)
    _shapes: tuple[re.Pattern[bytes], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _refuse_contradictions(self)
        object.__setattr__(self, "_names", frozenset(name.encode() for name in self.headers))
        object.__setattr__(self, "_shapes", tuple(_shape(form, self.signature_length) for form in self.forms))

    @property
    def signature_length(self) -> int:
        """How many characters a signature has."""
        size = hashlib.new(self.algorithm).digest_size
        return len(_written(self.encoding, bytes(size)))


class Verified(NamedTuple):
    """Proof that a request is genuine."""

    trust: Trust
    secret_index: int
    """Which of the source's secrets matched; above 0 an older one is still in use."""


def sign(scheme: Scheme, secret: str, body: bytes, *, now_s: int, signed_id: bytes = b"") -> dict[str, str]:
    """The headers that make `body` genuine under `secret`."""
    timestamp = str(now_s * scheme.timestamps_per_second)
    signature = _signature(scheme, secret, body, timestamp.encode(), signed_id).decode()
    headers = {scheme.headers[0]: scheme.forms[0].format(signature=signature, timestamp=timestamp)}
    if scheme.timestamp_header is not None:
        headers[scheme.timestamp_header] = timestamp
    return headers


def verify(
    scheme: Scheme, secrets: Sequence[str], headers: Headers, body: bytes, *, now_s: float, signed_id: bytes = b""
) -> Verified:
    """Prove that a request is genuine under one of `secrets`. Raises SignatureRejected with the reason's code."""
    given = _only_value(headers, scheme._names, "signature")
    parts = _parts(scheme, given)
    timestamp = _timestamp(scheme, headers, parts)
    for index, secret in enumerate(secrets):
        if hmac.compare_digest(_signature(scheme, secret, body, timestamp, signed_id), parts["signature"]):
            _refuse_outside_window(scheme, timestamp, now_s)
            return Verified(scheme.trust, index)
    raise SignatureRejected(
        "The signature matches none of the source's secrets: another secret, or a body changed on the way."
    )


def _only_value(headers: Headers, names: Collection[bytes], what: str) -> bytes:
    values = {value for name, value in headers if name in names}
    if len(values) > 1:
        raise SignatureRejected(f"The {what} header is repeated with different values.", code=f"{what}_ambiguous")
    value = values.pop() if values else b""
    if not value:
        arrived = _listed({name for name, _ in headers}, ", ") or "none"
        raise SignatureRejected(
            f"No {what} header: looked for {_listed(names, ' or ')}; arrived were {arrived}.", code=f"{what}_missing"
        )
    return value


def _listed(names: Iterable[bytes], between: str) -> str:
    return between.join(name.decode("latin-1") for name in sorted(names)[:ARRIVED_NAMES_MAX])


def _parts(scheme: Scheme, given: bytes) -> re.Match[bytes]:
    for shape in scheme._shapes:
        found = shape.fullmatch(given)
        if found is not None:
            return found
    forms = " or ".join(f"'{form}'" for form in scheme.forms)
    raise SignatureRejected(
        f"The signature header does not have the form {forms} with a signature of {scheme.signature_length} "
        f"characters ({scheme.encoding.value}); it is {len(given)} characters long.",
        code="signature_malformed",
    )


def _timestamp(scheme: Scheme, headers: Headers, parts: re.Match[bytes]) -> bytes:
    if scheme.timestamp_header is None:
        return parts["timestamp"]
    value = _only_value(headers, (scheme.timestamp_header.encode(),), "timestamp")
    # On bytes, isdigit knows ASCII digits only; int() would take signs, underscores, blanks and other scripts.
    if not value.isdigit() or len(value) > TIMESTAMP_DIGITS_MAX:
        raise SignatureRejected("The timestamp is not a plain number.", code="timestamp_malformed")
    return value


def _signature(scheme: Scheme, secret: str, body: bytes, timestamp: bytes, signed_id: bytes) -> bytes:
    if not secret or secret.isspace():
        raise SignatureRejected("A secret of the source is empty, and anybody can sign with it.", code="secret_empty")
    if not signed_id and Part.ID in scheme.signed:
        raise SignatureRejected("There is no id that could be signed.", code="id_missing")
    values = {Part.BODY: body, Part.TIMESTAMP: timestamp, Part.ID: signed_id}
    message = b"".join([part if isinstance(part, bytes) else values[part] for part in scheme.signed])
    mac = _keyed(secret, scheme.algorithm).copy()
    mac.update(message)
    return _written(scheme.encoding, mac.digest())


@lru_cache(maxsize=256)
def _keyed(secret: str, algorithm: str) -> hmac.HMAC:
    # Unlike hmac.digest, which lets go of the interpreter's lock for every body however short, and so gives way to the
    # journal's thread in the middle of each webhook.
    return hmac.new(secret.encode(), digestmod=algorithm)


def _written(encoding: Encoding, mac: bytes) -> bytes:
    return hexlify(mac) if encoding is Encoding.HEX else b2a_base64(mac, newline=False)


def _refuse_outside_window(scheme: Scheme, timestamp: bytes, now_s: float) -> None:
    if scheme.tolerance_s is None:
        return
    age_s = now_s - int(timestamp) / scheme.timestamps_per_second
    for distance_s, way in ((age_s, "old"), (-age_s, "ahead")):
        if distance_s > scheme.tolerance_s:
            raise SignatureRejected(
                f"The signature is right, but its timestamp is {distance_s:.0f} s {way}; "
                f"{scheme.tolerance_s} s are allowed. Check this machine's clock.",
                code=TIMESTAMP_OUTSIDE_WINDOW,
            )


def _shape(form: str, signature_length: int) -> re.Pattern[bytes]:
    holes = {
        "{signature}": f"(?P<signature>.{{{signature_length}}})",
        "{timestamp}": f"(?P<timestamp>[0-9]{{1,{TIMESTAMP_DIGITS_MAX}}})",
    }
    pieces = [holes.get(piece) or re.escape(piece) for piece in re.split(r"(\{signature\}|\{timestamp\})", form)]
    if holes["{timestamp}"] not in pieces:
        pieces.append("(?P<timestamp>)")
    return re.compile("".join(pieces).encode(), re.DOTALL)


def _refuse_contradictions(scheme: Scheme) -> None:
    timed = Part.TIMESTAMP in scheme.signed
    in_every_form = all(form.count("{timestamp}") == 1 for form in scheme.forms)
    in_no_form = not any("{timestamp}" in form for form in scheme.forms)
    names = [*scheme.headers, *([scheme.timestamp_header] if scheme.timestamp_header else [])]
    proved = Trust.C if Part.BODY not in scheme.signed else Trust.A if timed else Trust.B
    wrong = {
        "needs a signature header": not scheme.headers,
        "names headers in other than lower case": any(name != name.lower() for name in names),
        "needs forms with one {signature} each": not scheme.forms
        or any(form.count("{signature}") != 1 for form in scheme.forms),
        "signs neither a body nor an id": not {Part.BODY, Part.ID} & {*scheme.signed},
        "must say where the one signed timestamp stands: in a header of its own, or in every form": not (
            in_no_form if scheme.timestamp_header or not timed else in_every_form
        ),
        "speaks of a timestamp that is not signed": not timed
        and (scheme.timestamp_header is not None or scheme.tolerance_s is not None),
        f"proves trust {proved}": scheme.trust is not proved,
    }
    for fault, found in wrong.items():
        if found:
            raise ValueError(f"The scheme {fault}: {scheme.headers}.")
