"""Webhook signatures as data: a `Scheme` says what is signed and how it is written; `sign` and `verify` follow from it.

A signature is accepted in one textual form only: the header must equal, byte for byte and in constant time, what we
would have sent ourselves. So there is no decoder to be lenient, and case, padding, white space or look-alike digits
cannot make a second valid spelling.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from calls.errors import SignatureRejected
from calls.model import Trust

TIMESTAMP_DIGITS_MAX = 16

Headers = Sequence[tuple[bytes, bytes]]
"""Request headers as they arrived: lower-case names, repeated names kept apart."""


class Part(Enum):
    """What of a request goes into the signature."""

    BODY = "body"
    TIMESTAMP = "timestamp"
    ID = "id"


class Encoding(Enum):
    """How the 32 bytes of the MAC are written."""

    HEX = "hex"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a platform signs."""

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
    """How far the signed timestamp may be from our clock, both ways; None where none is signed."""
    algorithm: str = "sha256"


@dataclass(frozen=True, slots=True)
class Verified:
    """Proof that a request is genuine."""

    trust: Trust
    secret_index: int
    """Which of the source's secrets matched; above 0 an older one is still in use."""


def sign(scheme: Scheme, secret: str, body: bytes, *, now_s: int, signed_id: bytes = b"") -> dict[str, str]:
    """The headers that make `body` genuine under `secret`."""
    timestamp = str(now_s * scheme.timestamps_per_second)
    signature = _signature(scheme, secret, body, timestamp.encode(), signed_id)
    headers = {scheme.headers[0]: scheme.forms[0].format(signature=signature, timestamp=timestamp)}
    if scheme.timestamp_header is not None:
        headers[scheme.timestamp_header] = timestamp
    return headers


def verify(
    scheme: Scheme, secrets: Sequence[str], headers: Headers, body: bytes, *, now_s: float, signed_id: bytes = b""
) -> Verified:
    """Prove that a request is genuine under one of `secrets`. Raises SignatureRejected with the reason's code."""
    given = _only_value(headers, scheme.headers, "signature")
    timestamp = _timestamp(scheme, headers, given)
    for index, secret in enumerate(secrets):
        signature = _signature(scheme, secret, body, timestamp, signed_id)
        if _equals_a_form(scheme.forms, given, signature, timestamp):
            _refuse_outside_window(scheme, timestamp, now_s)
            return Verified(scheme.trust, index)
    raise _why_not(scheme, given)


def _only_value(headers: Headers, names: Iterable[str], what: str) -> bytes:
    wanted = [name.encode() for name in names]
    values = {value for name, value in headers if name in wanted}
    if not values or values == {b""}:
        looked_for = " or ".join(names)
        arrived = ", ".join(sorted({name.decode("latin-1") for name, _ in headers}))
        raise SignatureRejected(
            f"No {what} header: looked for {looked_for}; arrived were {arrived or 'none'}.", code=f"{what}_missing"
        )
    if len(values) > 1:
        raise SignatureRejected(f"The {what} header is repeated with different values.", code=f"{what}_ambiguous")
    return values.pop()


def _timestamp(scheme: Scheme, headers: Headers, given: bytes) -> bytes:
    if Part.TIMESTAMP not in scheme.signed:
        return b""
    if scheme.timestamp_header is not None:
        value = _only_value(headers, (scheme.timestamp_header,), "timestamp")
    else:
        before, after = scheme.forms[0].split("{timestamp}")
        value = given[len(before) :].split(after[:1].encode(), 1)[0]
    if not value.isdigit() or len(value) > TIMESTAMP_DIGITS_MAX:
        raise SignatureRejected("The timestamp is not a plain number.", code="timestamp_malformed")
    return value


def _signature(scheme: Scheme, secret: str, body: bytes, timestamp: bytes, signed_id: bytes) -> str:
    values = {Part.BODY: body, Part.TIMESTAMP: timestamp, Part.ID: signed_id}
    message = b"".join(part if isinstance(part, bytes) else values[part] for part in scheme.signed)
    mac = hmac.digest(secret.encode(), message, scheme.algorithm)
    return mac.hex() if scheme.encoding is Encoding.HEX else base64.b64encode(mac).decode()


def _equals_a_form(forms: tuple[str, ...], given: bytes, signature: str, timestamp: bytes) -> bool:
    for form in forms:
        expected = form.format(signature=signature, timestamp=timestamp.decode()).encode()
        if len(given) == len(expected) and hmac.compare_digest(given, expected):
            return True
    return False


def _refuse_outside_window(scheme: Scheme, timestamp: bytes, now_s: float) -> None:
    if scheme.tolerance_s is None:
        return
    age_s = now_s - int(timestamp) / scheme.timestamps_per_second
    if abs(age_s) > scheme.tolerance_s:
        raise SignatureRejected(
            f"The signature is right, but its timestamp is {abs(age_s):.0f} s {'old' if age_s > 0 else 'ahead'}; "
            f"{scheme.tolerance_s} s are allowed. Check this machine's clock.",
            code="timestamp_outside_window",
        )


def _why_not(scheme: Scheme, given: bytes) -> SignatureRejected:
    specimen = "0" * 64 if scheme.encoding is Encoding.HEX else "A" * 43 + "="
    digits = "0" * 10 if scheme.timestamps_per_second == 1 else "0" * 13
    shapes = [form.format(signature=specimen, timestamp=digits) for form in scheme.forms]
    if len(given) not in {len(shape) for shape in shapes}:
        return SignatureRejected(
            f"The signature header is {len(given)} characters long; expected is the form "
            + " or ".join(f"'{form}' with {len(specimen)} characters" for form in scheme.forms)
            + f" ({scheme.encoding.value}).",
            code="signature_malformed",
        )
    return SignatureRejected(
        "The signature matches none of the source's secrets: another secret, or a body changed on the way.",
        code="signature_wrong",
    )
