"""Whether this machine's clock can be believed, as far as what was received tells."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from calls import settings as settings_module
from calls.model import Delivery, Notice
from calls.provider import Provider, discover
from cli.check import Finding, Level, Patient

SKEW_WARN_S = 60
AHEAD_WARN_S = 60
SENDERS_MIN = 3
_NTP = "Switch time synchronisation on (timedatectl set-ntp true); without it signed timestamps are refused."


def check(patient: Patient) -> Iterator[Finding]:
    """Against our own files, against the journal's order, and against what senders signed."""
    built_at = Path(settings_module.__file__).stat().st_mtime
    now_s = patient.now / 1_000_000
    if now_s < built_at - AHEAD_WARN_S:
        text = f"It is {_text(now_s)} by this machine's clock, before Calltally was installed."
        yield Finding(Level.WRONG, text, _NTP)
    at = [record.received_at for record in patient.tail if isinstance(record, Delivery | Notice)]
    if at and max(at) / 1_000_000 > now_s + AHEAD_WARN_S:
        yield Finding(
            Level.WRONG,
            f"The journal holds a delivery of {_text(max(at) / 1_000_000)}, but it is {_text(now_s)} here: the clock "
            "was set back, or was ahead then.",
            _NTP,
        )
    skews = list(_skews(patient))
    if len(skews) < SENDERS_MIN:
        yield Finding(
            Level.OK,
            f"It is {_text(now_s)} here. No more can be said: too few deliveries with a signed timestamp have come.",
        )
        return
    skew = median(skews)
    text = f"This machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of the senders"
    text += f" (median of the newest {len(skews)} signed timestamps)."
    yield Finding(Level.WARNING, text, _NTP) if abs(skew) > SKEW_WARN_S else Finding(Level.OK, text)


def _skews(patient: Patient) -> Iterator[float]:
    """By how many seconds each was received after the time its sender signed."""
    timed = {name: provider for name, provider in discover().items() if provider.scheme.timestamp_header is not None}
    for record in patient.tail:
        if isinstance(record, Delivery) and record.provider in timed:
            signed_s = _signed_s(timed[record.provider], record)
            if signed_s is not None:
                yield record.received_at / 1_000_000 - signed_s


def _signed_s(provider: Provider, delivery: Delivery) -> float | None:
    text = delivery.headers.get(provider.scheme.timestamp_header or "", "")
    return int(text) / provider.scheme.timestamps_per_second if text.isascii() and text.isdigit() else None


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
