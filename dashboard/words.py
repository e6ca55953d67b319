"""How numbers, times and people's data are written on a page; one form each, everywhere."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from analytics.metric import Kind, Metric

THIN = "\N{NARROW NO-BREAK SPACE}"
"""Between thousands and before a unit; a thin space would let a number break over two lines."""
BULLET = "\N{BULLET}"
SMALL_N = 20
"""Below so many cases a share is shown as the counts themselves, without a rate or an arrow."""
DECIMAL_N = 100
"""From so many cases on a share has a decimal."""

PLAIN_REASONS = {
    "human_pick_up_cut_off": "broke off without a goodbye",
    "human_goodbye": "the person said goodbye",
    "human_ended_call": "the person hung up",
    "agent_goodbye": "the agent said goodbye",
    "agent_ended_call": "the agent hung up",
    "user_canceled": "hung up within the first second",
    "voicemail": "reached a voicemail",
    "voicemail_message_left": "left a message on a voicemail",
    "voicemail_cut_off": "cut off on a voicemail",
    "max_duration": "reached the longest allowed length",
    "timeout": "timed out",
    "custom_end_call": "a configured reason to end",
    "error": "an error of the platform",
    "undefined": "no reason given by the platform",
}
"""What a platform's end-call reason means, in plain words."""


def count(value: float) -> str:
    """A number of things with thin spaces between thousands; a decimal only where halves were counted."""
    whole = abs(value - round(value)) < 0.05
    return (f"{round(value):,}" if whole else f"{value:,.1f}").replace(",", THIN)


def counted(value: float, one: str, many: str) -> str:
    """A number with what is counted: 1 call, 2 calls."""
    return f"{count(value)} {one if value == 1 else many}"


def share(value: float, n: float) -> str:
    """A share in per cent, with a decimal from `DECIMAL_N` cases on."""
    return f"{value * 100:.{1 if n >= DECIMAL_N else 0}f}{THIN}%"


def duration(seconds: float) -> str:
    """A length of time: 0.4 s, 52 s, 1 min 52 s, 3 h 5 min, 184 h."""
    if seconds < 0:
        return f"\N{MINUS SIGN}{duration(-seconds)}"
    if 0 < seconds < 9.95 and abs(seconds - round(seconds)) >= 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(whole, 3600)
    if hours >= 10 or rest < 60:
        return f"{count(round(whole / 3600))} h"
    return f"{hours} h {rest // 60} min"


def value(metric: Metric, number: float, n: float) -> str:
    """A metric's value in its unit."""
    if metric.kind is Kind.SHARE:
        return share(number, n)
    if metric.unit == "s":
        return duration(number)
    if metric.unit == "USD":
        return f"{number:,.2f}".replace(",", THIN) + f"{THIN}USD"
    if metric.kind is Kind.MEAN:
        return f"{number:.2f}"
    return count(number)


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest fitting unit."""
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return "just now"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def local(moment: datetime, zone: str, *, year: bool = False) -> str:
    """A time in the viewer's zone: Fri 20 Nov 14:05:09, or Fri 20 Nov 2026 14:05:09."""
    return _in_zone(moment, zone).strftime("%a %d %b %Y %H:%M:%S" if year else "%a %d %b %H:%M:%S")


def day(moment: datetime, zone: str) -> str:
    """A day in the viewer's zone: 20 Nov 2026."""
    return _in_zone(moment, zone).strftime("%d %b %Y").removeprefix("0")


def label(text: str, most: int = 80) -> str:
    """Somebody's word as a label: on one line, of bounded length, without signs that reorder or hide what follows."""
    shown = "".join(_seen(char) for char in text).strip() or "(blank)"
    return shown if len(shown) <= most else shown[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def phone(number: str | None, *, masked: bool = True) -> str:
    """A phone number, grouped as its country does it; masked, only its ends are shown, of a short one only the last."""
    import phonenumbers

    if not number:
        return ""
    try:
        parsed = phonenumbers.parse(number, None)
        text = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    except phonenumbers.NumberParseException:
        text = label(number)
    if not masked:
        return text
    if "@" in text:
        return text[:2] + BULLET * 4
    digits = [index for index, char in enumerate(text) if char.isdigit()]
    hidden = set(digits[3 if len(digits) >= 8 else 0 : -2])
    return "".join(BULLET if index in hidden else char for index, char in enumerate(text))


def _in_zone(moment: datetime, zone: str) -> datetime:
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(ZoneInfo(zone))


def _seen(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    # Joiners hold emoji and several scripts together; all other format signs are invisible or turn the direction.
    if category == "Cf" and char not in "\u200c\u200d":
        return ""
    return char
