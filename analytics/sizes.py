"""How large a query may make lists and texts out of nothing.

A function that makes them runs inside one call that DuckDB cannot interrupt: `lpad('x', 2000000000, 'y')` ran on for 40
seconds after its interruption, `generate_series` over 200 years of seconds for 150 (measured, DuckDB 2.0.0). So the
arguments that decide about sizes must be bounded by what stands in the text of the query.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from calls.errors import QueryError

GROWTH_MAX: Final = 10_000
"""How often all size-giving functions of one query together may multiply their input."""
LENGTH_MAX: Final = 1_000
"""Characters of padding, of a separator, of a number in a format."""
_OF_DATA: Final = 100
"""What the length of something that exists counts as."""

Expression: TypeAlias = Mapping[str, object]
_LENGTHS = frozenset({"len", "length", "array_length", "cardinality", "json_array_length", "strlen"})
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_FORMAT_NUMBER = re.compile(r"\d{4,}|\*|\{[^{}]*\{")


def growth(function: str, arguments: Sequence[object], *, chained: bool) -> int:
    """By how much a call may multiply what goes in, 1 for nearly all. Raises QueryError of code `too_large`.

    `chained`: written `text.repeat(3)`, where the first argument is not among the arguments.
    """
    rule = _RULES.get(function)
    if rule is None:
        return 1
    given = [item for item in arguments if isinstance(item, dict)]
    if chained or any("name" in item for item in given):
        raise QueryError(f"Write {function} with all its arguments in brackets, without names.", code="too_large")
    return max(1, rule(function, [_expression(item.get("expression")) for item in given]))


def _repeated(function: str, arguments: Sequence[Expression]) -> int:
    return _bounded(function, arguments, 1)


def _padded(function: str, arguments: Sequence[Expression]) -> int:
    if _bounded(function, arguments, 1) > LENGTH_MAX:
        raise _too_large(function, f"pads to at most {LENGTH_MAX:,} characters")
    return 1


def _ranged(function: str, arguments: Sequence[Expression]) -> int:
    """Lists of numbers; those of times have no bound that could be read off the text."""
    if len(arguments) == 1:
        return _bounded(function, arguments, 0)
    start, stop = _number(arguments[0]), _bounded(function, arguments, 1)
    step = _number(arguments[2]) if len(arguments) > 2 else 1
    if start is None or not step or (step < 0 and _number(arguments[1]) is None):
        raise _too_large(
            function, "needs plain numbers as start and step; for times, or without bounds, use it in FROM"
        )
    return (stop - start) // step + 2


def _binned(function: str, arguments: Sequence[Expression]) -> int:
    return _bounded(function, arguments, 2)


def _replaced(function: str, arguments: Sequence[Expression]) -> int:
    searched = _text(arguments[1]) if len(arguments) > 1 else None
    replacement = _text(arguments[2]) if len(arguments) > 2 else None
    if replacement is None:
        raise _too_large(function, "needs a plain text as replacement")
    if function == "replace":
        return -(-len(replacement) // max(1, len(searched or "")))
    # A pattern may match every character, and is then ten times slower than a copy as well.
    return len(replacement) ** 2


def _formatted(function: str, arguments: Sequence[Expression]) -> int:
    pattern = _text(arguments[0]) if arguments else None
    if pattern is None or _FORMAT_NUMBER.search(pattern):
        raise _too_large(function, "needs a plain text as format, with widths under 1,000 in it")
    return 1


def _joined(position: int) -> Callable[[str, Sequence[Expression]], int]:
    def rule(function: str, arguments: Sequence[Expression]) -> int:
        if len(arguments) > position:
            separator = _text(arguments[position])
            if separator is None or len(separator) > LENGTH_MAX:
                raise _too_large(function, f"needs a plain text of at most {LENGTH_MAX:,} characters as separator")
        return 1

    return rule


_RULES: Mapping[str, Callable[[str, Sequence[Expression]], int]] = MappingProxyType(
    {
        "repeat": _repeated,
        "lpad": _padded,
        "rpad": _padded,
        "range": _ranged,
        "generate_series": _ranged,
        "equi_width_bins": _binned,
        "replace": _replaced,
        "regexp_replace": _replaced,
        "printf": _formatted,
        "format": _formatted,
        "array_to_string": _joined(1),
        "list_string_agg": _joined(1),
        "string_agg": _joined(1),
        "group_concat": _joined(1),
        "listagg": _joined(1),
        "concat_ws": _joined(0),
    }
)


def _bounded(function: str, arguments: Sequence[Expression], position: int) -> int:
    upper = _upper(arguments[position]) if len(arguments) > position else 0
    if upper is None:
        raise _too_large(
            function, f"needs a size that the query itself bounds: write a number, or least(..., {GROWTH_MAX // 100})"
        )
    return upper


def _upper(expression: Expression) -> int | None:
    """The most that a number can be, by the text alone; None where that is unknown."""
    if (number := _number(expression)) is not None:
        return number
    if expression.get("type") == "OPERATOR_CAST":
        return _upper(_expression(expression.get("child")))
    if expression.get("type") != "FUNCTION":
        return None
    name = str(expression.get("function_name")).lower()
    if name in _LENGTHS:
        return _OF_DATA
    inner = [_upper(part) for part in _arguments(expression)]
    known = [bound for bound in inner if bound is not None]
    if name == "least" and known:
        return min(known)
    if name == "greatest" and len(known) == len(inner):
        return max(known, default=None)
    if name == "+" and len(known) == len(inner) == 2:
        return sum(known)
    if name == "-" and len(inner) == 2 and inner[0] is not None:
        subtracted = _number(_arguments(expression)[1])
        return None if subtracted is None else inner[0] - subtracted
    return None


def _number(expression: Expression) -> int | None:
    """A whole number that is written out, with or without a sign."""
    if expression.get("type") == "VALUE_CONSTANT":
        literal = _expression(expression.get("literal"))
        text = str(literal.get("text", ""))
        return int(text) if literal.get("kind") == "INTEGER" and _WHOLE.fullmatch(text) else None
    if expression.get("type") == "FUNCTION" and expression.get("function_name") == "-":
        parts = _arguments(expression)
        inner = _number(parts[0]) if len(parts) == 1 else None
        return None if inner is None else -inner
    return None


def _text(expression: Expression) -> str | None:
    if expression.get("type") != "VALUE_CONSTANT":
        return None
    literal = _expression(expression.get("literal"))
    return str(literal.get("text", "")) if literal.get("kind") == "STRING" else None


def _arguments(expression: Expression) -> list[Expression]:
    given = expression.get("arguments", [])
    items = given if isinstance(given, list) else []
    return [_expression(_expression(item).get("expression")) for item in items]


def _expression(value: object) -> Expression:
    return value if isinstance(value, dict) else {}


def _too_large(function: str, why: str) -> QueryError:
    return QueryError(f"The function '{function}' {why}.", code="too_large")
