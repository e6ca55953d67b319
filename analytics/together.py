"""Several metrics from one pass over a roll-up: its rows are summed up once, to what all of them need.

A page shows some twenty numbers of the same rows, cut in a few ways. Asked one by one, each costs a plan and a scan.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analytics.cutting import bucket_of, plain_bucket_of
from analytics.metric import TYPED, Metric, Partial, offered
from analytics.selection import RELATIONS, Filters, Parameter, Relation, cut, narrowed

__all__ = ["Question", "grouped", "together"]

_HARMLESS = frozenset(
    "and as by case cast coalesce else exists filter from in not nullif on or select then when where".split()
)
"""Words before a bracket that change nothing when rows are summed up before."""


@dataclass(frozen=True, slots=True)
class Question:
    """A metric, and of what and how cut it is asked for."""

    metric: Metric
    filters: Filters
    bucket: str = "all"
    slice_by: str | None = None
    partial: Partial = Partial.STRICT

    @property
    def relation(self) -> Relation:
        """The rows that answer it."""
        sliced = () if self.slice_by is None else (self.slice_by,)
        return RELATIONS[self.metric.relation].holding(*self.filters.columns, *sliced)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal questions."""
        return self.metric.name, self.filters.key, self.bucket, self.slice_by, self.partial

    @property
    def adds_up(self) -> bool:
        """Whether nothing but sums is made of the rows, so that these may be summed up before."""
        sums = self.relation.sums
        if not sums:
            return False
        rest = re.sub(rf"\bsum\(({'|'.join(sums)})\)", "", self.metric.text)
        words = set(re.findall(r"\w+", rest))
        called = {name.lower() for name in re.findall(r"(\w+)\s*\(", rest)}
        return words.isdisjoint((*sums, self.relation.time)) and called <= _HARMLESS

    def columns(self) -> set[str]:
        """The columns of its rows that it looks at."""
        found = set(self.relation.columns).intersection(re.findall(r"\w+", self.metric.text))
        sliced = {self.slice_by} if self.slice_by else set()
        return found | sliced | ({"provider"} if self.metric.not_available_from() else set())


def grouped(questions: Iterable[Question]) -> list[list[Question]]:
    """The same questions, those together that one query answers in one pass."""
    groups: dict[tuple[object, ...], dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    alone = []
    for question in questions:
        if question.adds_up:
            groups[question.relation.rows, question.filters.key][question.bucket].append(question)
        else:
            alone.append([question])
    found = []
    for by_bucket in groups.values():
        whole = by_bucket.pop("all", [])
        most, *others = sorted(by_bucket.values(), key=len, reverse=True) or [[]]
        # What is not cut by time goes along with the buckets that most are cut by.
        found += [[*most, *whole], *others]
    return found + alone


def together(questions: Sequence[Question]) -> tuple[str, dict[str, Parameter]]:
    """The query for a group of `grouped`, and its parameters: `question`, a place in the group, beside its columns."""
    first = questions[0]
    if not first.adds_up:
        query, parameters = first.metric.sql(
            first.filters, bucket=first.bucket, slice_by=first.slice_by, partial=first.partial
        )
        return f"SELECT 0 AS question, * FROM (\n{query}\n)\n{_ORDER}", parameters
    base, parameters, began = _summed(questions)
    parts = []
    for place, question in enumerate(questions):
        text, used = _answered(question, place, began)
        parts.append(text)
        parameters |= used
    return f"WITH summed AS MATERIALIZED (\n{base}\n)\n" + "\nUNION ALL\n".join(parts) + f"\n{_ORDER}", parameters


_ORDER = 'ORDER BY question, bucket, "slice"'
_NO_BUCKET = "CAST(NULL AS TIMESTAMPTZ)"


def _summed(questions: Sequence[Question]) -> tuple[str, dict[str, Parameter], str]:
    """The rows that all of them read, summed up, their parameters, and how a row's bucket is read from them."""
    relation, filters = questions[0].relation, questions[0].filters
    where, parameters = narrowed(relation, filters)
    step = next((one.bucket for one in questions if one.bucket != "all"), "all")
    asked = (relation.time, step, filters.start, filters.end, filters.zone)
    plain = plain_bucket_of(*asked)
    bucket = plain or bucket_of(*asked)
    if "$zone" in bucket:
        parameters["zone"] = filters.zone
    columns = [f'"{column}"' for column in sorted({column for one in questions for column in one.columns()})]
    sums = [f"sum({name}) AS {name}" for name in relation.sums]
    listed = ", ".join([f"{bucket} AS began", *columns, *sums])
    began = _NO_BUCKET if step == "all" else "timezone('UTC', began)" if plain else "began"
    return f"SELECT {listed} FROM {relation.rows} WHERE {where} GROUP BY ALL", parameters, began


def _answered(question: Question, place: int, began: str) -> tuple[str, dict[str, Parameter]]:
    """One question's rows, from the rows summed up before."""
    metric = question.metric
    bucket = _NO_BUCKET if question.bucket == "all" else began
    rows = cut("summed WHERE true", bucket, question.slice_by, metric.not_available_from())
    values = offered(question.filters, bucket=question.bucket, slice_by=question.slice_by, partial=question.partial)
    used: dict[str, Parameter] = {}

    def named_apart(found: re.Match[str]) -> str:
        name = f"{found[1]}_of_{place}"
        used[name] = values[found[1]]
        return f"${name}"

    text = re.sub(rf"\$({'|'.join(values)})\b", named_apart, metric.text)
    measured = f"WITH selected AS ({rows}),\nmeasured AS (\n{text}\n)\n{TYPED}"
    return f"SELECT {place} AS question, * FROM (\n{measured}\n)", used
