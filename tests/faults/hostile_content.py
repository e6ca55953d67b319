"""Hostile content: bodies whose sender is genuine and whose content is anything, applied to a real store.

`python -m tests.faults.hostile_content --count 1000000 --seed 1` is the long form. A seed gives the same bodies again.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog

from analytics.store import Position, Store
from calls.model import Delivery, Rules
from streams.apply import Applier
from tests.contracts.samples import delivery_of, every_path, every_sample

BATCH: Final = 500
JOURNAL: Final = "00000000-0000-4000-8000-000000000000"

TORTURE: Final = {
    "not JSON": b"not json",
    "a string": b'"text"',
    "a number": b"17",
    "a list": b"[1, 2]",
    "null": b"null",
    "blanks": b" \n\t ",
    "depth 65": b'{"a":' * 65 + b"1" + b"}" * 65,
    "depth 100,000, objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "depth 100,000, lists": b"[" * 100_000 + b"]" * 100_000,
    "depth that never closes": b"[" * 1_000_000,
    "NaN and infinities": b'{"call": {"call_id": "t-nan", "duration": NaN, "x": -Infinity, "y": Infinity}}',
    "1e400": b'{"call": {"call_id": "t-1e400", "duration": 1e400}}',
    "an integer of 5,000 digits": b'{"call": {"call_id": "t-digits", "duration": ' + b"9" * 5000 + b"}}",
    "integers beyond 2^53 and 2^64": b'{"call": {"call_id": 9007199254740993, "x": 18446744073709551617}}',
    "minus zero and many digits": b'{"call": {"call_id": "t-zero", "duration": -0, "x": 0.1234567890123456789012345}}',
    "invalid UTF-8": b'{"call": {"call_id": "t-\xff\xfe"}}',
    "overlong UTF-8": b'{"call": {"call_id": "t-\xc0\xaf"}}',
    "a byte order mark": b'\xef\xbb\xbf{"call": {"call_id": "t-bom"}}',
    "UTF-16": '{"call": {"call_id": "t-16"}}'.encode("utf-16"),
    "a lone surrogate": b'{"call": {"call_id": "t-\\ud800"}}',
    "NUL in text": b'{"call": {"call_id": "t-nul", "transcript": "a\\u0000b", "end_call_reason": "\\u0000"}}',
    "NUL in the id": b'{"call": {"call_id": "t-\\u0000"}}',
    "bidi and zero width": '{"call": {"call_id": "t-bidi", "transcript": "\u202egnp.exe\u200b\u2066"}}'.encode(),
    "equal keys": b'{"call": {"call_id": "t-a", "call_id": "t-b"}, "call": {"call_id": "t-c"}}',
    "100,000 keys": json.dumps({"call": {"call_id": "t-keys"}} | {f"k{n}": n for n in range(100_000)}).encode(),
    "a list of 200,000": json.dumps({"call": {"call_id": "t-list", "executed_actions": [{}] * 200_000}}).encode(),
    "a string of 5 MB": json.dumps({"call": {"call_id": "t-long", "transcript": "a" * 5_000_000}}).encode(),
    "an id of 1 MB": json.dumps({"call": {"call_id": "t" * 1_000_000}}).encode(),
    "an id that is a list": b'{"call": {"call_id": ["t"]}, "data": {"call_id": {"a": 1}}}',
    "comments": b'{"call": {"call_id": "t-comment"} /* here */}',
    "a trailing comma": b'{"call": {"call_id": "t-comma"},}',
    "two documents": b'{"call": {"call_id": "t-1"}}{"call": {"call_id": "t-2"}}',
    "single quotes": b"{'call': {'call_id': 't'}}",
    "an unfinished string": b'{"call": {"call_id": "t-',
}
"""What JSON parsers disagree about, in the shape of a Synthflow call where there is a shape."""

VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**300, -(10**9), 0.1, -0.0, 1e-320, 1e308, "", " ",
    "0", "true", "TRUE", "partial", "null", "abc", "a" * 10_000, "\x00", "\u202e", "\U0001f600",
    "'); DROP TABLE calls; --", "=HYPERLINK(1)", "<script>alert(1)</script>", "{{7*7}}", "../../etc/passwd", "%s%n",
    "2026-13-45T99:99:99Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-06-30T23:59:60Z",
    "2026-06-01T12:00:00", "1717243200", 1717243200, 1717243200000, "12:34", "1:2:3:4", "+4915112345678",
    "javascript:alert(1)", "file:///etc/passwd", [], {},
    [None], [[]], [{}], [1, "a", None, {}], {"": ""}, {"value": None},
    {"a": {"b": {"c": {}}}}, ["a"] * 300,
)  # fmt: skip
"""What a field may hold that it should not."""


@dataclass
class Outcome:
    """What came of a run."""

    given: int = 0
    meant: Counter[str] = field(default_factory=Counter)
    """`event`, or the reason of the dead letter."""
    wrong: list[str] = field(default_factory=list)
    took_s: float = 0.0


def run(folder: Path, *, seed: int, count: int) -> Outcome:
    """Apply every piece of torture of every provider, and `count` mutated samples; then compare with what was given."""
    outcome = Outcome()
    began = time.monotonic()
    store = Store.open(folder / "store.duckdb", rules=Rules())
    try:
        applier = Applier(store, Rules())
        given: dict[str, int] = {}
        batch: list[Delivery] = []
        for position, delivery in enumerate(_deliveries(Random(seed), count), start=1):
            placed = delivery_of_again(delivery, position)
            given.setdefault(placed.id, position)
            batch.append(placed)
            if len(batch) == BATCH:
                applier.apply(batch, [Position("journal", JOURNAL, position)])
                batch = []
        if batch:
            applier.apply(batch, [Position("journal", JOURNAL, batch[-1].position)])
        outcome.given = len(given)
        outcome.wrong += list(_wrong(store, given, outcome))
    finally:
        store.close()
    outcome.took_s = time.monotonic() - began
    return outcome


def delivery_of_again(delivery: Delivery, position: int) -> Delivery:
    """The same delivery, further on in the journal."""
    return Delivery(
        source=delivery.source, provider=delivery.provider, org=delivery.org, body=delivery.body,
        headers=delivery.headers, received_at=delivery.received_at + position, trust=delivery.trust,
        journal_id=JOURNAL, position=position,
    )  # fmt: skip


def _deliveries(dice: Random, count: int) -> Iterator[Delivery]:
    samples = every_sample()
    for provider in {sample.provider.name: sample.provider for sample in samples}.values():
        for body in TORTURE.values():
            yield delivery_of(provider, body)
    for _ in range(count):
        sample = dice.choice(samples)
        yield delivery_of(sample.provider, _mutated(sample.body, dice))


def _mutated(body: bytes, dice: Random) -> bytes:
    if dice.random() < 0.3:
        return _damaged(body, dice)
    try:
        value = json.loads(body)
    except ValueError:
        return _damaged(body, dice)
    for _ in range(dice.choice((1, 1, 2, 3, 5))):
        paths = list(every_path(value))
        if not paths:
            break
        path = dice.choice(paths)
        holder: Any = value
        for key in path[:-1]:
            holder = holder[key]
        _change(holder, path[-1], dice)
    return json.dumps(value, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")


def _change(holder: Any, key: str | int, dice: Random) -> None:
    way = dice.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[dice.choice((str(key).upper(), f" {key}", f"{key}_", "call_id", ""))] = holder.pop(key)
    elif way == 2:
        holder[key] = [holder[key]]
    elif way == 3:
        holder[key] = {"value": holder[key]}
    else:
        holder[key] = copy.deepcopy(dice.choice(VALUES))


def _damaged(body: bytes, dice: Random) -> bytes:
    at = dice.randrange(len(body) + 1)
    way = dice.randrange(4)
    if way == 0:
        return body[:at]
    if way == 1:
        return body[:at] + dice.randbytes(dice.randrange(1, 5)) + body[at:]
    if way == 2:
        return body[:at] + body[at + dice.randrange(1, 30) :]
    return body[:at] + dice.choice((b"NaN", b"1e999", b'\\ud800"', b"[" * 70, b"\\u0000", b"]", b",", b'"')) + body[at:]


def _wrong(store: Store, given: dict[str, int], outcome: Outcome) -> Iterator[str]:
    cursor = store.cursor()
    accepted = cursor.execute("SELECT id FROM deliveries WHERE verdict = 'accepted'").fetchall()
    events = "SELECT position FROM call_events UNION ALL SELECT position FROM other_events"
    told = {position for (position,) in cursor.execute(events).fetchall()}
    dead = dict(cursor.execute("SELECT position, reason FROM dead_letters").fetchall())
    if Counter(found for (found,) in accepted) != Counter(given.keys()):
        counted = Counter(found for (found,) in accepted)
        yield f"{len(given)} distinct bodies were given, {len(counted)} are there, the most: {counted.most_common(1)}"
    for position in given.values():
        if (position in told) == (position in dead):
            yield f"position {position} is both an event and a dead letter, or neither"
    outcome.meant = Counter(dead.values()) + Counter({"event": len(told)})
    for reason in ("normaliser_failed", "not_storable", "provider_unknown"):
        if reason in outcome.meant:
            found = cursor.execute("SELECT position, detail FROM dead_letters WHERE reason = $1 LIMIT 3", [reason])
            yield f"{reason}, which is our fault: {found.fetchall()}"
    yield from store.verify()


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), seed=given.seed, count=given.count)
    found = {
        "seed": given.seed, "distinct": outcome.given, "meant": dict(outcome.meant), "took_s": round(outcome.took_s),
        "wrong": outcome.wrong[:20],
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    raise SystemExit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()
