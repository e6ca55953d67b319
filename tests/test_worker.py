"""The embedded stream over a real journal and a real store: the tables hold what is journalled, whatever fails."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from analytics.store import Position, Store
from calls.errors import JournalDamaged, StoreLocked, StoreMismatch
from calls.journal import Append, Journal, JournalReader, NewDelivery, NewNotice
from calls.model import CallEvent, Delivery, Micros, Notice, Rules, Verdict, delivery_id
from calls.provider import discover
from streams import steps
from streams.apply import REPORTED_MAX, Applier
from streams.rebuild import rebuild
from streams.recent import RecentCalls
from streams.worker import Worker
from tests.contracts.samples import every_sample
from tests.journalling import Answers, as_read, child, edit, said
from tests.storing import everything, rows
from tests.waiting import until

NOON: Micros = 1_780_315_200_000_000
SECOND = 1_000_000
RULES = Rules(success={"interested": "met"})


def webhook(
    number: int, *, call_id: str = "c1", event: str = "call.started", source: str = "aisync", received_at: Micros = 0
) -> NewDelivery:
    """An AI Sync webhook whose number makes it a body of its own, received in the order of the numbers."""
    body = b'{"event":"%s","timestamp":%d,"data":{"call_id":"%s","number":%d}}' % (
        event.encode(),
        NOON // 1000 + number,
        call_id.encode(),
        number,
    )
    return of_body("aisync", body, source=source, received_at=received_at or NOON + number * SECOND)


def of_body(provider: str, body: bytes, *, source: str | None = None, received_at: Micros = NOON) -> NewDelivery:
    source = source or provider
    return NewDelivery(
        source=source,
        provider=provider,
        org="",
        body=body,
        headers={"content-type": "application/json"},
        received_at=received_at,
        trust=discover()[provider].scheme.trust,
        id=delivery_id(source, body),
    )


def refusal(number: int) -> NewNotice:
    return NewNotice(
        source="aisync",
        provider="aisync",
        verdict=Verdict.REFUSED,
        reason="signature_wrong",
        detail="The signature is another one.",
        id=None,
        bytes=10,
        count=3,
        received_at=NOON + number * SECOND,
    )


def samples() -> list[NewDelivery]:
    """Every sample of every provider, one a second."""
    return [
        of_body(sample.provider.name, sample.body, received_at=NOON + number * SECOND)
        for number, sample in enumerate(every_sample())
    ]


def journalled(folder: Path, *records: NewDelivery | NewNotice) -> Path:
    """The folder's journal, closed, with these records at its end."""
    path = folder / "journal.sqlite"
    answers = Answers()
    journal = Journal(path, on_committed=answers)
    for record in records:
        journal.append(Append(record))
    answers.wait_durable(len(records))
    journal.close()
    return path


def worker_of(folder: Path, rules: Rules = RULES) -> Worker:
    store_path = folder / "store.duckdb"
    return Worker(folder / "journal.sqlite", lambda: Store.open(store_path, rules=rules), rules, store_path=store_path)


@contextmanager
def running(folder: Path, rules: Rules = RULES) -> Iterator[tuple[Worker, Store]]:
    """A worker at work in a thread, stopped and closed at the end."""
    worker = worker_of(folder, rules)
    store = worker.open()
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker, store
    finally:
        worker.stop()
        thread.join(10)
        alive = thread.is_alive()
        worker.close()
        assert not alive


def caught_up(worker: Worker, position: int) -> None:
    until(lambda: worker.state.position >= position)


def tables_of(folder: Path, rules: Rules = RULES) -> dict[str, list[tuple[object, ...]]]:
    """All that a worker makes of the folder's journal."""
    reader = JournalReader(folder / "journal.sqlite")
    last = reader.last_position()
    reader.close()
    with running(folder, rules) as (worker, store):
        caught_up(worker, last)
        assert store.verify() == []
        return everything(store)


def was_set_aside(folder: Path) -> bool:
    return any(folder.glob("store.duckdb.store_damaged-*Z"))


# Following the journal


def test_every_sample_of_every_provider_comes_into_the_tables(tmp_path: Path) -> None:
    """Each delivery has its row, and is an event or a dead letter."""
    path = journalled(tmp_path, *samples(), refusal(1))
    tables = tables_of(tmp_path)
    assert len(tables["deliveries"]) == len(samples()) + 1
    reader = JournalReader(path)
    meanings = [steps.interpret(record) for record in reader.read(0) if isinstance(record, Delivery)]
    reader.close()
    events = [timed for meaning in meanings if isinstance(meaning, list) for timed in meaning]
    assert len(tables["call_events"]) == sum(timed.event.call_id is not None for timed in events)
    assert len(tables["other_events"]) == sum(timed.event.call_id is None for timed in events)
    assert len(tables["dead_letters"]) == sum(not isinstance(meaning, list) for meaning in meanings)
    assert len(tables["calls"]) == len({(t.provider, t.event.org, t.event.call_id) for t in events if t.event.call_id})


def test_a_fresh_webhook_is_applied_while_the_worker_runs(tmp_path: Path) -> None:
    """The worker needs no restart and no timer to see it, and counts it."""
    journal = Journal(journalled(tmp_path), on_committed=Answers())
    with running(tmp_path) as (worker, store):
        until(lambda: worker.state.running)
        for number, event in enumerate(("call.started", "call.ended"), 1):
            journal.append(Append(webhook(number, event=event)))
            caught_up(worker, number)
        assert rows(store, "SELECT call_id, event_count FROM calls") == [("c1", 2)]
        assert worker.state.lag == 0
        assert worker.state.rows_per_s > 0
        assert worker.state.tally.calls_changed == 2
        assert worker.state.last_commit_at is not None
    journal.close()


def test_the_worker_waits_for_a_journal_that_is_not_there_yet(tmp_path: Path) -> None:
    """It says what it waits for, and goes on by itself."""
    with running(tmp_path) as (worker, _):
        until(lambda: worker.state.fault is not None)
        journalled(tmp_path, webhook(1))
        caught_up(worker, 1)
        until(lambda: worker.state.fault is None)


def test_a_worker_resumes_where_the_store_stands(tmp_path: Path) -> None:
    """Nothing is applied twice and nothing is left out."""
    journalled(tmp_path, webhook(1), webhook(2, call_id="c2"))
    tables_of(tmp_path)
    journalled(tmp_path, webhook(3), webhook(4, call_id="c2", event="call.ended"))
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "journal.sqlite").write_bytes((tmp_path / "journal.sqlite").read_bytes())
    assert tables_of(tmp_path) == tables_of(whole)


def test_a_stop_is_clean_and_frees_the_store(tmp_path: Path) -> None:
    """`run` returns, and another process may open the file."""
    journalled(tmp_path, webhook(1))
    with running(tmp_path) as (worker, _):
        caught_up(worker, 1)
    assert not worker.state.running
    Store.open(tmp_path / "store.duckdb", rules=RULES).close()


def test_a_damaged_row_of_the_journal_is_a_dead_letter_and_the_rest_counts(tmp_path: Path) -> None:
    """What the journal cannot vouch for stays out, visibly."""
    path = journalled(tmp_path, webhook(1), webhook(2), webhook(3))
    edit(path, "UPDATE rows SET body = ? WHERE position = 2", b"{}")
    tables_of(tmp_path)
    with running(tmp_path) as (_, store):
        assert rows(store, "SELECT position, reason FROM dead_letters") == [(2, "journal_damaged")]
        assert rows(store, "SELECT event_count FROM calls") == [(2,)]


# Poison


def test_a_normaliser_that_raises_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One poison event becomes a dead letter; its neighbours in the batch count."""
    nothing: dict[str, list[CallEvent]] = {}
    with_normaliser(monkeypatch, poisonous(lambda: nothing["found"]))
    journalled(tmp_path, webhook(1), webhook(2, event="poison"), webhook(3))
    with running(tmp_path) as (worker, store):
        caught_up(worker, 3)
        assert rows(store, "SELECT position, reason FROM dead_letters") == [(2, "normaliser_failed")]
        assert rows(store, "SELECT event_count FROM calls") == [(2,)]
        assert worker.state.tally.dead_letters == {"normaliser_failed": 1}


def test_what_senders_do_wrong_is_no_error_of_ours(tmp_path: Path) -> None:
    """However many of a batch cannot be read: warnings, of which the last tells how many more there are."""
    unreadable = [of_body("aisync", b"\xff%d" % number) for number in range(100)]
    journalled(tmp_path, *unreadable)
    with capture_logs() as told, running(tmp_path) as (worker, _):
        caught_up(worker, 100)
    said = [line for line in told if "dead letter" in str(line["event"])]
    assert {line["log_level"] for line in said} == {"warning"}
    assert sum(line.get("more", 1) for line in said) == 100


def test_one_call_id_in_two_orgs_is_two_calls(tmp_path: Path) -> None:
    """Ids are the platform's, and two of its customers may get the same."""
    journalled(tmp_path, webhook(1), msgspec.structs.replace(webhook(2, source="other"), org="acme"))
    with running(tmp_path) as (worker, store):
        caught_up(worker, 2)
        assert rows(store, "SELECT org, call_id, event_count FROM calls ORDER BY org") == [
            ("", "c1", 1),
            ("acme", "c1", 1),
        ]


def test_a_bug_in_every_event_is_an_alarm_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is understood goes on counting; the log says it loudly once, and tells single ones up to a number."""
    with_normaliser(monkeypatch, poisonous(list))
    poison = [webhook(number, event="poison") for number in range(300)]
    path = journalled(tmp_path, *poison, webhook(1_000))
    with capture_logs() as told, running(tmp_path) as (worker, store):
        caught_up(worker, 301)
        assert rows(store, "SELECT event_count FROM calls") == [(1,)]
        assert rows(store, "SELECT reason, count(*) FROM dead_letters GROUP BY ALL") == [("normaliser_failed", 300)]
        assert worker.state.fault is None
        assert worker.state.tally.mistakes_in_a_row == 300
    (alarm,) = [line for line in told if line["log_level"] == "critical"]
    assert "calltally dead retry" in str(alarm["event"])
    letters = [line for line in told if line["event"] == "a delivery became a dead letter"]
    assert len(letters) == REPORTED_MAX
    assert all(line["log_level"] == "error" for line in letters)
    monkeypatch.undo()
    rebuild(path, tmp_path / "store.duckdb", RULES)
    with running(tmp_path) as (_, mended):
        assert rows(mended, "SELECT event_count FROM calls") == [(301,)]


def test_an_event_that_the_store_cannot_keep_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that no column takes is found by halving the batch, and put away alone."""
    wrong = [CallEvent(event="poison", call_id="c9", org="", happened_at=2**70)]
    with_normaliser(monkeypatch, poisonous(lambda: wrong))
    many = [webhook(number, call_id=f"c{number % 5}") for number in range(1, 40)]
    poison = [webhook(100, event="poison"), webhook(101, event="poison")]
    journalled(tmp_path, *many[:20], poison[0], *many[20:], poison[1])
    with running(tmp_path) as (worker, store):
        caught_up(worker, 41)
        assert rows(store, "SELECT position, reason FROM dead_letters ORDER BY 1") == [
            (21, "not_storable"),
            (41, "not_storable"),
        ]
        assert rows(store, "SELECT sum(event_count) FROM calls") == [(39,)]
        assert rows(store, "SELECT count(*) FROM deliveries WHERE verdict = 'accepted'") == [(41,)]
        assert store.verify() == []


def with_normaliser(monkeypatch: pytest.MonkeyPatch, normalise: Callable[[Delivery], list[CallEvent]]) -> None:
    provider = replace(discover()["aisync"], normalise=normalise)
    monkeypatch.setattr(steps, "discover", lambda: MappingProxyType({"aisync": provider}))


def poisonous(bug: Callable[[], list[CallEvent]]) -> Callable[[Delivery], list[CallEvent]]:
    """AI Sync's normaliser with a bug that shows on events called poison."""
    right = discover()["aisync"].normalise
    return lambda delivery: bug() if b"poison" in delivery.body else right(delivery)


# Repetition and order


def as_records(records: Sequence[NewDelivery | NewNotice], journal_id: str = "j1") -> list[Delivery | Notice]:
    return [as_read(record, journal_id, position) for position, record in enumerate(records, 1)]


def applied(
    folder: Path, batches: Iterable[Sequence[Delivery | Notice]], *, recent: RecentCalls | None = None
) -> dict[str, list[tuple[object, ...]]]:
    """All that is in a new store after these batches."""
    store = Store.open(folder / "store.duckdb", rules=RULES)
    try:
        applier = Applier(store, RULES, recent=recent)
        for number, records in enumerate(batches, 1):
            applier.apply(records, [Position("kafka", "topic", number)])
        assert store.verify() == []
        return everything(store)
    finally:
        store.close()


one_calls_webhooks = [
    webhook(1, event="call.started"),
    webhook(2, event="call.answered"),
    webhook(3, event="call.ended"),
    webhook(4, event="call.transferred"),
    webhook(5, call_id="c2", event="call.ended"),
    webhook(6, event="lead.generated"),
    of_body("aisync", b"not JSON", received_at=NOON + 7 * SECOND),
]


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_any_batches_and_any_repetition_give_the_same_tables(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither how records are cut into batches nor their order nor what is handed in again changes a row."""
    records = as_records(one_calls_webhooks)
    expected = applied(tmp_path_factory.mktemp("once"), [records])
    told = data.draw(st.permutations(records)) + data.draw(st.lists(st.sampled_from(records), max_size=6))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(told)), max_size=4)))
    batches = [told[start:end] for start, end in zip([0, *cuts], [*cuts, len(told)], strict=True)]
    recent = data.draw(st.sampled_from([None, 0, 20_000]))
    remembered = None if recent is None else RecentCalls(bytes_max=recent)
    assert applied(tmp_path_factory.mktemp("again"), batches, recent=remembered) == expected


def test_handing_in_a_batch_again_changes_nothing(tmp_path: Path) -> None:
    """As after a commit whose answer was lost."""
    records = as_records(one_calls_webhooks)
    assert applied(tmp_path, [records, records, records[2:5]]) == applied_elsewhere(tmp_path, [records])


def applied_elsewhere(
    folder: Path, batches: Iterable[Sequence[Delivery | Notice]]
) -> dict[str, list[tuple[object, ...]]]:
    other = folder / "elsewhere"
    other.mkdir()
    return applied(other, batches)


def test_the_same_bytes_later_are_a_repeat(tmp_path: Path) -> None:
    """The door remembers only so many ids; further down a repeat is known at any age, and counts nothing twice."""
    journalled(tmp_path, webhook(1), webhook(2), webhook(1, received_at=NOON + 90 * SECOND))
    tables_of(tmp_path)
    with running(tmp_path) as (_, store):
        assert rows(store, "SELECT position, verdict FROM deliveries ORDER BY position") == [
            (1, "accepted"),
            (2, "accepted"),
            (3, "repeated"),
        ]
        assert rows(store, "SELECT event_count, epoch_us(last_received_at) FROM calls") == [(2, NOON + 2 * SECOND)]


def in_two_journals() -> tuple[list[Delivery | Notice], list[Delivery | Notice]]:
    """The same webhooks, one of them not understood, as two doors took them."""
    first = as_records([webhook(1), of_body("aisync", b"no JSON", received_at=NOON)], "j1")
    later = {"journal_id": "j2", "received_at": NOON + 50 * SECOND}
    return first, [msgspec.structs.replace(record, position=record.position + 8, **later) for record in first]


def test_of_one_webhook_in_two_journals_the_earlier_counts_in_whatever_order(tmp_path: Path) -> None:
    """Two doors may take the same webhook, and Kafka may deliver either first."""
    first, second = in_two_journals()
    forwards, backwards = applied(tmp_path, [first, second]), applied_elsewhere(tmp_path, [second, first])
    for table in ("dead_letters", "deliveries"):
        del forwards[table], backwards[table]
    assert forwards == backwards
    assert len(forwards["call_events"]) == 1


def test_of_one_webhook_in_two_journals_the_later_is_the_repeat_in_whatever_order(tmp_path: Path) -> None:
    """Its row and its dead letter, too, say the same whichever came first."""
    first, second = in_two_journals()
    assert applied(tmp_path, [first, second]) == applied_elsewhere(tmp_path, [second, first])


def test_calls_forgotten_by_the_memory_come_back_from_the_store(tmp_path: Path) -> None:
    """A small memory costs time, never a difference."""
    batches = [[record] for record in as_records(one_calls_webhooks)]
    assert applied(tmp_path, batches, recent=RecentCalls(bytes_max=0)) == applied_elsewhere(tmp_path, batches)


def test_the_memory_of_recent_calls_is_bounded_and_keeps_the_latest(tmp_path: Path) -> None:
    """By number and by bytes, whichever comes first."""
    store = Store.open(tmp_path / "store.duckdb", rules=RULES)
    for first, recent in ((1, RecentCalls(calls_max=10)), (101, RecentCalls(bytes_max=60_000))):
        applier = Applier(store, RULES, recent=recent)
        for number in range(first, first + 100):
            record = as_read(webhook(number, call_id=f"c{number}"), "j1", number)
            applier.apply([record], [Position("kafka", "topic", number)])
        assert 1 <= len(recent) <= 10
    store.close()


# Rebuilding


def test_a_deleted_store_comes_back_with_the_same_contents(tmp_path: Path) -> None:
    """The store is a view: all of it follows from the journal."""
    journalled(tmp_path, *samples(), refusal(1), *[webhook(n, call_id=f"c{n % 7}") for n in range(300)])
    before = tables_of(tmp_path)
    (tmp_path / "store.duckdb").unlink()
    assert tables_of(tmp_path) == before


def test_a_rebuild_gives_the_same_contents_and_tells_its_progress(tmp_path: Path) -> None:
    """Beside the old store, which it replaces only in the end."""
    path = journalled(tmp_path, *[webhook(n, call_id=f"c{n % 7}") for n in range(50)])
    before = tables_of(tmp_path)
    told: list[tuple[int, int]] = []
    tally, kept_as = rebuild(path, tmp_path / "store.duckdb", RULES, progress=lambda *reached: told.append(reached))
    assert told[0] == (0, 50)
    assert told[-1] == (50, 50)
    assert (tally.records, kept_as) == (50, None)
    assert tables_of(tmp_path) == before
    assert {file.name for file in tmp_path.iterdir()} <= {
        "journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "journal.sqlite.lock", "followers", "store.duckdb"
    }  # fmt: skip


def test_a_rebuild_refuses_while_a_worker_runs(tmp_path: Path) -> None:
    """The file that a worker has open is never replaced under it."""
    path = journalled(tmp_path, webhook(1))
    script = "import sys\nfrom tests.test_worker import work\nwork(sys.argv[1])"
    with child(script, tmp_path) as process:
        assert said(process) == "1"
        with pytest.raises(StoreLocked):
            rebuild(path, tmp_path / "store.duckdb", RULES)
    assert not list(tmp_path.glob("*.rebuilding*"))


def test_a_store_made_by_other_rules_is_set_aside_and_made_again(tmp_path: Path) -> None:
    """Without a person, and with the numbers that the new rules give."""
    body = b'{"event":"call.ended","timestamp":1780315200,"data":{"call_id":"c1","disposition":"interested"}}'
    journalled(tmp_path, of_body("aisync", body))
    tables_of(tmp_path, Rules())
    with running(tmp_path) as (worker, store):
        caught_up(worker, 1)
        assert rows(store, "SELECT result FROM calls") == [("met",)]
    assert len(list(tmp_path.glob("store.duckdb.store_mismatch-*Z"))) == 1


def test_only_the_newest_stores_that_were_set_aside_are_kept(tmp_path: Path) -> None:
    """Changing the rules every day does not fill the disk."""
    journalled(tmp_path, webhook(1))
    for criterion in "abcde":
        tables_of(tmp_path, Rules(success_criterion=criterion))
    assert len(list(tmp_path.glob("store.duckdb.store_mismatch-*Z"))) == 2


def test_a_damaged_store_is_set_aside_and_made_again(tmp_path: Path) -> None:
    """Without a person."""
    journalled(tmp_path, webhook(1), webhook(2))
    before = tables_of(tmp_path)
    (tmp_path / "store.duckdb").write_bytes(b"\0" * 100_000)
    assert tables_of(tmp_path) == before
    assert was_set_aside(tmp_path)


@pytest.mark.parametrize("on_purpose", [True, False])
def test_a_damaged_store_stays_where_it_is_if_the_journal_lost_its_beginning(tmp_path: Path, on_purpose: bool) -> None:
    """What cannot be made again is not thrown away; the error says why."""
    path = journalled(tmp_path, webhook(1), webhook(2))
    beginning_lost(path, on_purpose=on_purpose)
    (tmp_path / "store.duckdb").write_bytes(b"\0" * 100_000)
    with pytest.raises(StoreMismatch, match="begins at position 2: what stood before is not in it") as refused:
        worker_of(tmp_path).open()
    assert refused.value.code == "journal_incomplete"
    assert (tmp_path / "store.duckdb").read_bytes() == b"\0" * 100_000


def test_a_damaged_store_is_made_again_from_a_journal_whose_first_record_is_damaged(tmp_path: Path) -> None:
    """It is reported and kept out like any other; only rows that are gone are a lost beginning."""
    path = journalled(tmp_path, webhook(1), webhook(2))
    edit(path, "UPDATE rows SET body = '{}' WHERE position = 1")
    (tmp_path / "store.duckdb").write_bytes(b"\0" * 100_000)
    with running(tmp_path) as (worker, store):
        caught_up(worker, 2)
        assert rows(store, "SELECT position, reason FROM dead_letters") == [(1, "journal_damaged")]
    assert was_set_aside(tmp_path)


def test_a_rebuild_keeps_a_store_that_knows_more_than_the_journal(tmp_path: Path) -> None:
    """An older copy of the journal was put back: what came after it stands only in the present store."""
    path = journalled(tmp_path, webhook(1))
    older = path.read_bytes()
    journalled(tmp_path, webhook(2, call_id="later"))
    before = tables_of(tmp_path)
    path.write_bytes(older)
    kept_as = rebuild(path, tmp_path / "store.duckdb", RULES).kept_as
    assert kept_as is not None
    kept = Store.open(kept_as, rules=RULES)
    assert everything(kept) == before
    kept.close()


def beginning_lost(path: Path, *, on_purpose: bool) -> None:
    """The first record is gone; `on_purpose` the journal says so, as where old records were moved away."""
    edit(path, "DELETE FROM rows WHERE position = 1")
    if not on_purpose:
        return
    from calls.journal_file import _seal_about

    edit(
        path,
        "UPDATE about SET value = ?, seal = ? WHERE key = ?",
        "2",
        _seal_about(b"first_position", b"2"),
        "first_position",
    )


def test_a_store_of_another_journal_is_refused_by_name(tmp_path: Path) -> None:
    """Never silently skipped, and the other journal's numbers stay readable."""
    journalled(tmp_path, webhook(1), webhook(2))
    tables_of(tmp_path)
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    journalled(tmp_path, *[webhook(number) for number in range(10, 20)])
    with running(tmp_path) as (worker, store):
        until(lambda: worker.state.fault is not None)
        assert isinstance(worker.state.fault, StoreMismatch)
        assert worker.state.fault.code == "other_journal"
        assert rows(store, "SELECT event_count FROM calls") == [(2,)]


def test_an_older_copy_of_the_journal_is_refused_by_name(tmp_path: Path) -> None:
    """Otherwise new records would take positions that count as applied, and be skipped."""
    journalled(tmp_path, webhook(1))
    old = (tmp_path / "journal.sqlite").read_bytes()
    journalled(tmp_path, webhook(2))
    tables_of(tmp_path)
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    (tmp_path / "journal.sqlite").write_bytes(old)
    with running(tmp_path) as (worker, _):
        until(lambda: worker.state.fault is not None)
        assert isinstance(worker.state.fault, JournalDamaged)


def test_a_store_filled_from_kafka_is_refused_by_name(tmp_path: Path) -> None:
    """Its positions say nothing about this journal."""
    applied(tmp_path, [as_records([webhook(1)])])
    journalled(tmp_path, webhook(1))
    with running(tmp_path) as (worker, _):
        until(lambda: worker.state.fault is not None)
        assert worker.state.fault is not None
        assert worker.state.fault.code == "other_stream"


# Failures while at work


def test_a_commit_that_fails_is_tried_again_until_it_succeeds(tmp_path: Path) -> None:
    """After a failed commit the store is reopened, its position read, and the rest applied; the state says why."""
    path = journalled(tmp_path, webhook(1))
    with running(tmp_path) as (worker, store):
        caught_up(worker, 1)
        break_connections(store)
        journal = Journal(path, on_committed=Answers())
        journal.append(Append(webhook(2)))
        caught_up(worker, 2)
        until(lambda: worker.state.fault is None)
        assert rows(store, "SELECT event_count FROM calls") == [(2,)]
        journal.close()


def break_connections(store: Store) -> None:
    """As after a fatal error: nothing can be committed over what is open."""
    store._writer.close()


def test_a_store_that_rots_while_at_work_is_made_again_in_place(tmp_path: Path) -> None:
    """The worker and those who read through it go on with the new one."""
    journal = Journal(journalled(tmp_path), on_committed=Answers())
    with running(tmp_path) as (worker, store):
        for number in range(1, 10):
            journal.append(Append(webhook(number, call_id=f"c{number}")))
        caught_up(worker, 9)
        # The row of a call vanishes: the store no longer agrees with what the worker knows.
        store._writer.execute("DELETE FROM kept.calls WHERE call_id = 'c7'")
        journal.append(Append(webhook(10, call_id="c7")))
        caught_up(worker, 10)
        until(lambda: worker.state.fault is None and worker.state.lag == 0)
        assert rows(store, "SELECT count(*), sum(event_count) FROM calls") == [(9, 10)]
        assert store.verify() == []
        assert was_set_aside(tmp_path)
    journal.close()


def test_a_worker_killed_at_any_moment_goes_on_where_it_was(tmp_path: Path) -> None:
    """Some kills later the tables are the same as without any."""
    many = [webhook(n, call_id=f"c{n % 50}", event="call.ended" if n % 3 else "call.started") for n in range(6000)]
    path = journalled(tmp_path, *many)
    script = "import sys\nfrom tests.test_worker import work\nwork(sys.argv[1])"
    for position in (2000, 4000):
        with child(script, tmp_path) as process:
            while int(said(process)) < position:
                pass
            process.send_signal(signal.SIGKILL)
    killed = tables_of(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "journal.sqlite").write_bytes(path.read_bytes())
    assert killed == tables_of(whole)


def work(folder: str) -> None:
    """A worker in a process of its own that says each position it reaches."""
    worker = worker_of(Path(folder))
    worker.open()
    threading.Thread(target=worker.run, daemon=True).start()
    told = 0
    while True:
        if worker.state.position > told:
            told = worker.state.position
            sys.stdout.write(f"{told}\n")
            sys.stdout.flush()
        threading.Event().wait(0.001)
