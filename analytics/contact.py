"""Who was on the other end of a call, as SQL over its row: their number, who they are by it, what they refuse."""

from __future__ import annotations

from typing import Final

OUTSIDE_NUMBER: Final = (
    "CASE WHEN direction = 'outbound' THEN coalesce(callee_phone, caller_phone) ELSE caller_phone END"
)
"""The number as sent, whoever dialled: a platform that names who called whom puts its own in `caller_phone`."""

_WITHHELD = ("266696687", "7378742833", "2562533", "8656696", "86282452253", "7748283")
"""ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN, UNAVAILABLE and PRIVATE on a telephone's keys: what some carriers pass on in
the place of a number that is withheld."""
_SHORTEST = 3
_DIALLED = "translate(number, ' +-()./', '')"
_DIGITS = "'0123456789'"
_IS_MASKED = "regexp_matches(number, '[*\\x{2022}]|[xX]{2}')"

CONTACT: Final = (
    f"CASE WHEN ltrim({_DIALLED}, {_DIGITS}) = '' THEN "
    f"CASE WHEN length({_DIALLED}) < {_SHORTEST} OR list_contains({list(_WITHHELD)}, {_DIALLED}) THEN NULL "
    f"WHEN starts_with({_DIALLED}, '00') THEN {_DIALLED}[3:] ELSE {_DIALLED} END "
    f"WHEN translate(number, {_DIGITS}, '') = number OR {_IS_MASKED} THEN NULL ELSE lower(trim(number)) END"
)
"""The person behind a column `number`: one text for every spelling of it, as the fold reads test numbers.

Null where the number is withheld or masked: all who do so are not one person. Of a SIP address the address is meant.
"""

_REFUSAL = "(dnc|do ?not ?(call|contact)|opt(s|ed|ing)? ?out|unsubscrib(e[ds]?|ing))"
_SAID = "translate(lower(concat_ws(' ; ', disposition, array_to_string(tags, ' ; '))), '_-', '  ')"

OPTED_OUT: Final = (
    f"regexp_matches(regexp_replace({_SAID}, '\\b(no|not|never|without) +(yet +)?{_REFUSAL}\\b', '', 'g'), "
    f"'\\b{_REFUSAL}\\b')"
)
"""Whether disposition or tags say that the person wants no more calls; "not opted out" says the opposite."""
