"""Mistakes that the harness must find: each is put into the product from outside, for one process.

They are the harness's own proof. A check that passes with one of these in place checks nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.points import put

SLOW_S: Final = 8.0
"""Longer than a member of a group may be silent."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted mistake."""

    process: str
    """As `Actor.title` has it."""
    plant: Callable[[], None]
    found_as: str
    """The number of the report that must not be 0."""
    only: str = ""
    """The one platform that sends, where another's traffic makes the product notice and mend it."""


def _answer_before_the_fsync() -> None:
    """Ingest says 200 when a webhook is handed over, and writes it half a second later."""
    import time

    from calls.journal import Append, Journal

    commit = Journal._commit

    def late_commit(journal: Journal, batch: Any) -> Any:
        if batch:
            journal._on_committed([Append(item.record, item.waiter) for item, _ in batch], None)
            for item, _ in batch:
                item.waiter = None
        time.sleep(0.5)
        return commit(journal, batch)

    put(Journal, "_commit", late_commit)


def _a_lost_cursor() -> None:
    """The worker begins at the journal's end instead of where the store stands."""
    from streams.worker import Worker

    applied = Worker._applied

    def from_the_end(worker: Worker, store: Any, reader: Any) -> int:
        applied(worker, store, reader)
        return int(reader.last_position())

    put(Worker, "_applied", from_the_end)


def _a_double_count() -> None:
    """Changed calls are added to the roll-ups without what they added before being taken away."""
    from analytics import contributions

    changes = contributions.changes

    def only_adding(batch: Any) -> Any:
        import msgspec

        return changes([msgspec.structs.replace(change, before=None) for change in batch])

    put(contributions, "changes", only_adding)


def _a_skipped_comparison() -> None:
    """The signature is computed, and the comparison's result is not looked at."""
    from calls import signing

    class Compared:
        def __getattr__(self, name: str) -> Any:
            return getattr(hmac, name)

        def compare_digest(self, _given: object, _right: object) -> bool:
            return True

    put(signing, "hmac", Compared())


def a_commit_that_says_no() -> None:
    """No mistake of ours, but what makes the next one show: now and then COMMIT succeeds and raises."""
    import duckdb

    from tests.faults import points

    commits = 0

    def told(text: str, after: bool) -> None:
        nonlocal commits
        if after and text == "COMMIT":
            commits += 1
            if commits % 7 == 3:
                raise duckdb.IOException("a disk that fails when all is written")

    points.watch_duckdb(told)


def _a_retry_after_a_failed_commit() -> None:
    """A batch whose commit failed is applied again, without asking the store whether it is in."""
    from analytics.store import Store
    from calls.errors import StoreUnavailable

    a_commit_that_says_no()
    apply = Store.apply

    def apply_again(store: Store, batch: Any) -> None:
        try:
            apply(store, batch)
        except StoreUnavailable:
            store.reopen()
            apply(store, batch)

    put(Store, "apply", apply_again)


FAULTS: Final = {
    "an answer before the fsync": Fault("ingest", _answer_before_the_fsync, "lost"),
    "a lost cursor": Fault("worker", _a_lost_cursor, "lost"),
    "a double count": Fault("worker", _a_double_count, "double"),
    "a skipped comparison": Fault("ingest", _a_skipped_comparison, "forged"),
    # With one event a call: a call put in twice and then changed is found out by the store, which is then made anew.
    "a retry after a failed commit": Fault("worker", _a_retry_after_a_failed_commit, "double", only="synthflow"),
}


def _a_cursor_before_its_acknowledgement() -> None:
    """The relay remembers a position before it has sent what stands there, and takes its time to send it."""
    import time

    from ingest.publication import Publication

    advance = Publication._advance

    def remember_at_once(publication: Any, producer: Any, cursor: Any) -> None:
        last = publication._reader.last_position()
        if last > publication._read:
            cursor.save(last)
            time.sleep(1.0)
        advance(publication, producer, cursor)

    put(Publication, "_advance", remember_at_once)


def _an_offset_of_kafkas() -> None:
    """The Kafka worker skips what came while it was away, but for the last record, so that it does come to the end."""
    from streams.flow import Flow

    starts = Flow.__init__

    def at_the_last(flow: Any, *arguments: Any, **named: Any) -> None:
        starts(flow, *arguments, **named)
        for slot, end in flow._held.ends.items():
            # Where nothing came it reads what it did not announce before its death, as it should: else it never ends.
            if flow._applied.get(slot, 0) < end - 1:
                flow._applied[slot] = flow._read_from[slot] = end - 1

    put(Flow, "__init__", at_the_last)


def _a_call_published_once() -> None:
    """Of a call only the first version is published."""
    from streams.announce import Announcer

    records = Announcer.records
    seen: set[Any] = set()

    def only_new(announcer: Announcer, keys: Any, dead_letters: Any = ()) -> Any:
        fresh = [key for key in keys if key not in seen]
        seen.update(fresh)
        return records(announcer, fresh, dead_letters)

    put(Announcer, "records", only_new)


def _a_stranger_in_the_group() -> None:
    """A second worker, with a store of its own, in the group of the folder above; it publishes nothing."""
    from pathlib import Path

    from streams import faust_app, fetches
    from streams.announce import Announcer

    group_of, app = faust_app.group_of, fetches._App

    def member(group: str, **options: Any) -> Any:
        return app(group, **{**options, "consumer_group_instance_id": None})

    put(faust_app, "group_of", lambda data_dir: group_of(Path("..") / "data"))
    put(fetches, "_App", member)
    put(Announcer, "records", lambda *_: [])


def _a_store_that_takes_its_time() -> None:
    """Its third batch, and one now and then, takes longer than a session of Kafka's lasts."""
    import time

    from analytics.store import Store

    apply = Store.apply
    batches = 0

    def apply_slowly(store: Store, batch: Any) -> None:
        nonlocal batches
        batches += 1
        time.sleep(SLOW_S if batches % 20 == 3 else 0.01)
        apply(store, batch)

    put(Store, "apply", apply_slowly)


def _a_journal_commit_that_says_no() -> None:
    """Now and then SQLite's COMMIT succeeds and raises: what was answered 503 is in the journal all the same."""
    import sqlite3

    from tests.faults import points

    commits = 0

    def told(text: str, after: bool) -> None:
        nonlocal commits
        if after and text == "COMMIT":
            commits += 1
            if commits % 9 == 5:
                raise sqlite3.OperationalError("disk I/O error")

    points.watch_sqlite("journal.sqlite", told)


KAFKA_FAULTS: Final = {
    "a cursor before its acknowledgement": Fault("relay", _a_cursor_before_its_acknowledgement, "lost"),
    "an offset of Kafka's": Fault("worker --kafka", _an_offset_of_kafkas, "lost"),
    "a call published once": Fault("worker --kafka", _a_call_published_once, "lost"),
}
"""Mistakes on the way through Kafka."""
TROUBLES: Final = {
    "a commit that says no": Fault("worker", a_commit_that_says_no, ""),
    "a journal commit that says no": Fault("ingest", _a_journal_commit_that_says_no, ""),
}
"""No mistakes of ours: the world's, and the report must be clean."""
KAFKA_TROUBLES: Final = {
    "a stranger in the group": Fault("worker --kafka", _a_stranger_in_the_group, ""),
    "a store that takes its time": Fault("worker --kafka", _a_store_that_takes_its_time, ""),
}
ALL: Final = {**FAULTS, **KAFKA_FAULTS, **TROUBLES, **KAFKA_TROUBLES}
