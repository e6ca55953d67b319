"""How far a worker says it is, and how far its store is, hold at every moment."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import msgspec
import pytest

from analytics.store import Position, Store
from calls.errors import StoreError
from calls.journal import Append, Journal
from calls.model import CallEvent, Delivery
from calls.provider import discover
from streams.apply import Applier
from tests import command
from tests.journalling import DEADLINE_S, Answers, as_read
from tests.storing import everything, rows
from tests.test_worker import RULES, caught_up, journalled, refusal, running, webhook, with_normaliser
from tools.ports import free_ports


def test_the_lag_counts_what_arrived_while_a_batch_was_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the batch: what is shown is how far behind it is, not how far it was when it began."""
    held, release = threading.Event(), threading.Event()
    lags: list[int] = []
    right = discover()["aisync"].normalise

    def normalise(delivery: Delivery) -> list[CallEvent]:
        if delivery.position == 2:
            held.set()
            assert release.wait(DEADLINE_S)
        lags.append(worker.state.lag)
        return right(delivery)

    with_normaliser(monkeypatch, normalise)
    path = journalled(tmp_path, webhook(1))
    with running(tmp_path) as (worker, _):
        caught_up(worker, 1)
        journal = Journal(path, on_committed=(answers := Answers()))
        journal.append(Append(webhook(2)))
        assert held.wait(DEADLINE_S)
        for number in (3, 4, 5):
            journal.append(Append(webhook(number)))
        answers.wait_durable(4)
        release.set()
        caught_up(worker, 5)
        journal.close()
    # The third delivery is read with two more behind it.
    assert lags[2] == 3


def test_a_batch_that_breaks_leaves_the_store_at_its_last_good_piece(tmp_path: Path) -> None:
    """Its pieces carry their position, so what is in and how far it says to be agree, and nothing comes twice."""
    unkeepable = msgspec.structs.replace(refusal(4), bytes=2**70)
    good = [as_read(webhook(number), "j1", number) for number in (1, 2, 3)]
    rest = [as_read(webhook(number), "j1", number) for number in (4, 5)]
    store = Store.open(tmp_path / "store.duckdb", rules=RULES)
    applier = Applier(store, RULES)
    with pytest.raises(StoreError, match="cannot be kept"):
        applier.apply([*good, as_read(unkeepable, "j1", 4), rest[1]], [Position("journal", "j1", 5)])
    assert store.positions() == {("journal", "j1"): 3}
    assert rows(store, "SELECT count(*) FROM deliveries") == [(3,)]
    applier.apply(rest, [Position("journal", "j1", 5)])
    whole = Store.open(tmp_path / "whole.duckdb", rules=RULES)
    Applier(whole, RULES).apply([*good, *rest], [Position("journal", "j1", 5)])
    assert everything(store) == everything(whole)
    store.close()
    whole.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_closes_its_store(tmp_path: Path, number: signal.Signals) -> None:
    """It ends by itself, not by the signal, and leaves no write-ahead log for the next one to read."""
    command.settings_file(tmp_path, ports=free_ports(3))
    command.journal(tmp_path, command.deliveries(5))
    with command.running(tmp_path, "worker") as processes:
        processes["worker"].send_signal(number)
        assert processes["worker"].wait(DEADLINE_S) == 0
    assert (tmp_path / "data" / "store.duckdb").exists()
    assert not (tmp_path / "data" / "store.duckdb.wal").exists()
