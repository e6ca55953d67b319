"""What a metric is: one `.sql` file with a comment header, read from a folder, run through `POST /sql`.

A metric's text reads `selected`: the rows of the relation named in its header (`from:`, see `selection.RELATIONS`)
that the filters leave, with two columns more: `bucket` (the start of its time bucket in the asked zone, or null for
`all`) and `slice` (the value of the asked column as text, or null). It returns `bucket, slice, value, numerator,
denominator, n`. Excluded calls (spam, tests) are not in `selected`, nor are those of platforms that do not send what
the number `needs`: a platform that never tells of transfers would only dilute their share. `every_call` holds all
calls, unfiltered. The parameters `$start`, `$end`, `$zone`, `$bucket`, `$slice` and `$partial` may be used; those a
text does not mention are not sent.

Files of `<data_dir>/metrics` are read the same way, and need no more than to be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType

from analytics.cutting import BUCKETS
from analytics.selection import (
    EVERY_CALL,
    FILLED,
    FILTERS,
    GRAIN_US,
    RELATIONS,
    Filters,
    Parameter,
    Relation,
    iso,
    selected,
    sends,
)
from calls.errors import SettingsError
from calls.provider import discover

__all__ = [
    "BUCKETS", "FILLED", "FILTERS", "GRAIN_US", "RELATIONS", "Better", "Filters", "Kind", "Metric", "Parameter",
    "Partial", "Relation", "catalogue", "difference", "interval", "iso", "selected", "sends", "titles",
]  # fmt: skip

SHIPPED = Path(__file__).parent / "metrics"


class Kind(StrEnum):
    """What sort of number a metric is; decides how it is shown and compared."""

    COUNT = "count"
    SHARE = "share"
    MEAN = "mean"
    QUANTILE = "quantile"


class Better(StrEnum):
    """Which direction is good news."""

    HIGHER = "higher"
    LOWER = "lower"
    NEUTRAL = "neutral"


class Partial(StrEnum):
    """How a partly met result counts in success rates."""

    STRICT = "strict"
    HALF = "half"
    LENIENT = "lenient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number that we show."""

    name: str
    title: str
    kind: Kind
    unit: str
    """calls, %, s, ..."""
    better: Better
    about: str
    needs: tuple[frozenset[str], ...]
    """What a provider must send for the number to exist, see `Provider.sends`: of each set at least one."""
    relation: str
    additive: bool
    """Whether the numerators and denominators of parts add up to those of the whole; different people do not."""
    version: int
    text: str

    def sql(
        self,
        filters: Filters,
        *,
        bucket: str = "all",
        slice_by: str | None = None,
        partial: Partial = Partial.STRICT,
    ) -> tuple[str, dict[str, Parameter]]:
        """The query to send and its parameters. Raises SettingsError for an unknown bucket or slice."""
        rows, parameters = selected(
            self.relation, filters, bucket=bucket, slice_by=slice_by, without=self.not_available_from()
        )
        context = f"every_call AS ({EVERY_CALL}),\n" if re.search(r"\bevery_call\b", self.text) else ""
        query = f"WITH selected AS ({rows}),\n{context}measured AS (\n{self.text}\n)\n{TYPED}"
        values = offered(filters, bucket=bucket, slice_by=slice_by, partial=partial) | parameters
        used = set(re.findall(r"\$([a-z_0-9]+)", query))
        return query, {name: value for name, value in values.items() if name in used}

    def not_available_from(self) -> frozenset[str]:
        """The providers that do not send what this number is made of."""
        return frozenset(
            provider for provider in discover() if not all(any(sends(provider, c) for c in one) for one in self.needs)
        )

    def slices(self) -> tuple[str, ...]:
        """The columns that it can be sliced by."""
        relation = RELATIONS[self.relation]
        return tuple(sorted(relation.columns | (relation.by_call.columns if relation.by_call else frozenset())))


def offered(filters: Filters, *, bucket: str, slice_by: str | None, partial: Partial) -> dict[str, Parameter]:
    """The parameters that a metric's text may use."""
    return {
        "start": iso(filters.start),
        "end": iso(filters.end),
        "zone": filters.zone,
        "bucket": bucket,
        "slice": slice_by,
        "partial": partial.value,
    }


def catalogue(extra: Path | None = None) -> Mapping[str, Metric]:
    """Every metric by name: the shipped ones and those of `extra`, which win. Raises SettingsError for a bad file."""
    found = dict(_shipped())
    if extra is not None and extra.is_dir():
        found.update(_read_folder(extra))
    return MappingProxyType(found)


def titles() -> Mapping[str, str]:
    """The providers' names for people."""
    return MappingProxyType({name: provider.title for name, provider in discover().items()})


@lru_cache(maxsize=4096)
def interval(numerator: float, denominator: float) -> tuple[float, float]:
    """The Wilson 95 % interval of a share, as fractions; of nothing, everything from 0 to 1."""
    # Its import takes half a second, which commands and pages without a share need not pay.
    from statsmodels.stats.proportion import proportion_confint

    if denominator <= 0:
        return 0.0, 1.0
    low, high = proportion_confint(numerator, denominator, alpha=0.05, method="wilson")
    # Of none and of all, rounding leaves a trace of what lies beyond.
    return 0.0 if numerator <= 0 else float(low), 1.0 if numerator >= denominator else float(high)


@lru_cache(maxsize=4096)
def difference(now: tuple[float, float], before: tuple[float, float]) -> tuple[float, float]:
    """Newcombe's 95 % interval of the difference of two shares, each given as numerator and denominator."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    if now[1] <= 0 or before[1] <= 0:
        return -1.0, 1.0
    low, high = confint_proportions_2indep(*now, *before, method="newcomb", compare="diff")
    return float(low), float(high)


# Sums of whole numbers come as 128-bit ones and shares as decimals; who reads a metric should not have to care.
TYPED = """SELECT
    bucket, "slice",
    CAST(value AS DOUBLE) AS value,
    CAST(numerator AS DOUBLE) AS numerator,
    CAST(denominator AS DOUBLE) AS denominator,
    CAST(n AS BIGINT) AS n
FROM measured"""


@cache
def _shipped() -> Mapping[str, Metric]:
    return MappingProxyType(_read_folder(SHIPPED))


def _read_folder(folder: Path) -> dict[str, Metric]:
    return {path.stem: _read(path) for path in sorted(folder.glob("*.sql"))}


def _read(path: Path) -> Metric:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"The metric file {path} is not UTF-8 text; save it as such.") from None
    header = _header(text)
    missing = [key for key in ("title", "kind", "unit", "better", "about", "from", "version") if not header.get(key)]
    if missing:
        raise SettingsError(f"The metric file {path} lacks '-- {missing[0]}: ...' in its header.")
    if unknown := sorted(set(header).difference(_KEYS)):
        raise SettingsError(f"The metric file {path} has '{unknown[0]}' in its header; known are {', '.join(_KEYS)}.")
    if header["from"] not in RELATIONS:
        raise SettingsError(f"The metric file {path} reads '{header['from']}'; it can read {', '.join(RELATIONS)}.")
    try:
        return Metric(
            name=path.stem,
            title=header["title"],
            kind=Kind(header["kind"]),
            unit=header["unit"],
            better=Better(header["better"]),
            about=header["about"],
            needs=tuple(frozenset(word.split("|")) for word in header.get("needs", "").split()),
            relation=header["from"],
            additive=Kind(header["kind"]) is not Kind.QUANTILE and header.get("adds", "yes") != "no",
            version=int(header["version"]),
            text=_body(text),
        )
    except ValueError as error:
        raise SettingsError(f"The metric file {path} has a wrong header: {error}.") from None


_KEYS = ("title", "kind", "unit", "better", "about", "needs", "from", "adds", "version")


def _header(text: str) -> dict[str, str]:
    """The `-- key: value` lines; a line that starts with `--   ` goes on with the one above."""
    header: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if (match := re.match(r"-- ([a-z]+): (.*)", line)) is not None:
            key = match[1]
            header[key] = match[2].strip()
        elif key:
            header[key] += " " + line.removeprefix("--").strip()
    return header


def _body(text: str) -> str:
    """What stands below the header, without a semicolon at its end."""
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return "\n".join(lines[first:]).strip().removesuffix(";").rstrip()
