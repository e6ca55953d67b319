"""How numbers, times and people's data are written on a page; one form each, everywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from analytics.metric import Kind, Metric

THIN = "\N{THIN SPACE}"
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
    """A whole number with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", THIN)


def share(value: float, n: float) -> str:
    """A share in per cent, with a decimal from `DECIMAL_N` cases on."""
    return f"{value * 100:.{1 if n >= DECIMAL_N else 0}f}{THIN}%"


def duration(seconds: float) -> str:
    """A length of time: 52 s, 1 min 52 s, 3 h 5 min, 184 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(whole, 3600)
    if hours >= 10 or rest < 60:
        return f"{count(whole / 3600)} h"
    return f"{hours} h {rest // 60} min"


def value(metric: Metric, number: float, n: float) -> str:
    """A metric's value in its unit."""
    if metric.kind is Kind.SHARE:
        return share(number, n)
    if metric.unit == "s":
        return duration(number)
    if metric.kind is Kind.COUNT:
        return count(number)
    return f"{number:.2f}"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest fitting unit."""
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return "just now"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def local(moment: datetime, zone: str) -> str:
    """A time in the viewer's zone: Fri 20 Nov 14:05:09."""
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(ZoneInfo(zone)).strftime("%a %d %b %H:%M:%S")


def phone(number: str | None, *, masked: bool = True) -> str:
    """A phone number, grouped as its country does it; masked, only its ends are shown."""
    import phonenumbers

    if not number:
        return ""
    try:
        parsed = phonenumbers.parse(number, None)
        text = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    except phonenumbers.NumberParseException:
        text = number
    if not masked:
        return text
    digits = [index for index, char in enumerate(text) if char.isdigit()]
    hidden = set(digits[3:-2])
    return "".join("\N{BULLET}" if index in hidden else char for index, char in enumerate(text))
