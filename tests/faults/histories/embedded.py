"""Histories of the embedded stream: a journal, a worker that follows it, and a store."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

from analytics.store import Position, Store
from calls.crashes import Crashes
from calls.dead_letters import CRASHED_WORKER
from calls.journal import Append, Journal, JournalReader, NewDelivery, NewNotice
from calls.journal_row import Record
from streams import worker as worker_module
from streams import worker_state
from streams.apply import JOURNAL, Applier
from streams.rebuild import rebuild
from streams.recent import RecentCalls
from streams.worker import Worker
from tests.faults.histories.grounds import Files, Ground, Kept, require_locked
from tests.faults.histories.law import RULES, THOROUGH, Law, contents
from tests.faults.histories.mishaps import AT_COMMITS, IN_STATEMENTS, Fault, Killed, put
from tests.faults.histories.traffic import NOON, SECOND, record
from tests.journalling import Answers, edit
from tests.storing import everything, rows

TURNS_MAX: Final = 60
"""A worker that has not caught up after so many attempts is stuck."""
APPENDED_MAX: Final = 12
UNTIDIED: Final = 0.7
"""How often a worker is stopped before it finds time to tidy the store."""


class World:
    """One data folder, and what is known of it without asking the store."""

    def __init__(self, folder: Path, ground: Ground, spare: Kept) -> None:
        """`spare` is a place to make the store anew in."""
        self.given: Counter[str] = Counter()
        self.ground = ground
        self.clock = NOON
        self.journal_path = folder / "journal.sqlite"
        self._spare = spare
        self._law = Law()
        self._sent: list[NewDelivery] = []
        self._told: list[Record] = []
        self._store: Store | None = None

    def step(self, name: str, dice: Random) -> None:
        """Let one thing happen. Raises AssertionError or what the product raises where the store is not as it ought."""
        _STEPS[name](self, dice)
        if self.journal_path.exists():
            self._check()

    def finish(self, dice: Random) -> None:
        """Let the worker catch up, and compare with a store that is made anew."""
        if not self.journal_path.exists():
            return
        self.work(dice)
        self._check()
        store, records = self.store(), self.records()
        assert max(store.positions().values(), default=0) == len(records), "the worker stopped early"
        thorough = isinstance(self.ground, Files) or dice.random() < THOROUGH
        if thorough:
            assert store.verify() == []
        anew, close = self._made_anew(dice)
        try:
            for look in (contents, everything) if thorough else (contents,):
                one, other = look(store), look(anew)
                for table in one.keys() | other.keys():
                    assert one.get(table) == other.get(table), f"table {table} differs from a rebuild"
        finally:
            close()

    def close(self) -> None:
        """Let go of the store."""
        held, self._store = self._store, None
        if held is not None:
            self.ground.close(held)

    def store(self) -> Store:
        """The store, open from one step to the next."""
        if self._store is None:
            self._store = self.ground.open()
        return self._store

    def records(self) -> list[Record]:
        """The whole journal."""
        if not self._told and self.journal_path.exists():
            reader = JournalReader(self.journal_path)
            self._told = reader.read(0, rows=1_000_000, bytes_max=1 << 40)
            reader.close()
        return self._told

    def append(self, dice: Random) -> None:
        answers = Answers()
        journal = Journal(self.journal_path, on_committed=answers)
        try:
            records = [self._drawn(dice) for _ in range(dice.randint(1, APPENDED_MAX))]
            for one in records:
                journal.append(Append(one))
            answers.wait_durable(len(records))
        finally:
            journal.close()
        self._told.clear()

    def damage(self, position: int) -> None:
        """That row of the journal rots."""
        edit(self.journal_path, "UPDATE rows SET head = ? WHERE position = ?", "{}", position)
        self._told.clear()

    def work(self, dice: Random, fault: Fault | None = None) -> None:
        """Let a worker catch up, with batches of any size, through one fault of its store."""
        worker = Worker(self.journal_path, self.store, RULES, store_path=self.ground.path)
        with _cut_reader(worker, dice):
            store = worker.open()
            if fault is not None:
                fault.break_into(store)
            try:
                worker.run()
            except Killed:
                self._store = None
                self.ground.die(store, dice, self.given)
                self.given["crashes"] += 1
            else:
                assert worker.state.fault is None, worker.state.fault
        if fault is not None:
            fault.mend(store)
            self.given[fault.kind] += fault.given

    def _check(self) -> None:
        """Whether the rows are a function of the journal's beginning up to the store's position."""
        store = self.store()
        positions = store.positions()
        assert {stream for stream, _ in positions} <= {JOURNAL}
        applied = max(positions.values(), default=0)
        assert applied <= len(self.records())
        told = self.records()[:applied]
        self._law.require(store, self._law.of(told, _journal_id(self.records()), self._deadly(store)))

    def _deadly(self, store: Store) -> set[str]:
        """What this store passed over, which only deliveries that were named at two deaths may be."""
        text = (
            "SELECT d.id FROM kept.dead_letters AS l JOIN kept.deliveries AS d USING (journal_id, position) "
            f"WHERE l.reason = '{CRASHED_WORKER}'"
        )
        crashes = Crashes(self.ground.path).deadly
        found = {str(the_id) for (the_id,) in rows(store, text)} if crashes else set()
        assert found <= set(crashes), "a delivery was passed over that never ended a process"
        return found

    def _made_anew(self, dice: Random) -> tuple[Store, Callable[[], None]]:
        deadly = self._deadly(self.store())
        records = self.records()
        if isinstance(self.ground, Files) and not deadly:
            path = self.ground.path.with_name("whole.duckdb")
            rebuild(self.journal_path, path, RULES)
            store = Store.open(path, rules=RULES)
            return store, store.close
        self._spare.begin()
        store = self._spare.open()
        crashes = _passing_over(self._spare.path, deadly)
        if records:
            position = Position(JOURNAL, _journal_id(records), len(records))
            Applier(store, RULES, crashes=crashes).apply(records, [position])
        return store, store.close

    def _drawn(self, dice: Random) -> NewDelivery | NewNotice:
        self.clock += dice.randint(0, 5 * SECOND)
        drawn = record(dice, self._sent, self.clock)
        if isinstance(drawn, NewDelivery):
            self.given["repeated deliveries"] += any(drawn.id == one.id for one in self._sent)
            self.given["poison"] += b"poison" in drawn.body or "x-poison" in drawn.headers
            self._sent.append(drawn)
        return drawn


def _append(world: World, dice: Random) -> None:
    world.append(dice)


def _append_and_work(world: World, dice: Random) -> None:
    world.append(dice)
    world.work(dice)


def _work_through(kind: str) -> Callable[[World, Random], None]:
    def step(world: World, dice: Random) -> None:
        world.append(dice)
        world.work(dice, Fault.drawn(kind, dice))

    return step


def _repeat(world: World, dice: Random) -> None:
    """Hand in records again that are applied, as after a commit whose answer was lost."""
    store = world.store()
    for (stream, journal_id), position in store.positions().items():
        again = world.records()[dice.randint(0, position) : position]
        if again:
            recent = RecentCalls(bytes_max=dice.choice((0, 10_000, 1 << 20)))
            Applier(store, RULES, recent=recent).apply(again, [Position(stream, journal_id, again[-1].position)])
            world.given["batches handed in again"] += 1


def _second_writer(world: World, dice: Random) -> None:
    """A second writer is not let in, and changes nothing by trying."""
    world.store()
    require_locked(world.ground)
    world.given["second writers"] += 1


def _copy_store(world: World, dice: Random) -> None:
    world.close()
    world.ground.copy()


def _put_old_copy_back(world: World, dice: Random) -> None:
    world.append(dice)
    world.close()
    world.given["old copies put back"] += world.ground.put_back()
    world.work(dice)


def _lose_store(world: World, dice: Random) -> None:
    world.close()
    world.ground.lose(to_others=False)
    world.given["stores lost"] += 1
    world.work(dice)


def _change_rules(world: World, dice: Random) -> None:
    world.close()
    world.ground.lose(to_others=True)
    world.given["stores of other rules"] += 1
    world.work(dice)


def _damage_journal(world: World, dice: Random) -> None:
    """A row of the journal rots before it is applied."""
    applied = len(world.records())
    world.append(dice)
    world.damage(dice.randint(applied + 1, len(world.records())))
    world.given["rotten rows"] += 1
    world.work(dice)


def _jump_clock(world: World, dice: Random) -> None:
    world.clock += dice.choice((-1, 1)) * dice.choice((1, 3_600, 86_400, 40 * 86_400)) * SECOND
    world.given["clock jumps"] += 1
    world.append(dice)
    world.work(dice)


_STEPS: Final[Mapping[str, Callable[[World, Random], None]]] = {
    "append": _append,
    "append and work": _append_and_work,
    **{kind: _work_through(kind) for kind in sorted(IN_STATEMENTS | AT_COMMITS)},
    "repeat": _repeat,
    "second writer": _second_writer,
    "copy the store": _copy_store,
    "put the old copy back": _put_old_copy_back,
    "lose the store": _lose_store,
    "change the rules": _change_rules,
    "damage the journal": _damage_journal,
    "clock jumps": _jump_clock,
}
_RARE: Final = {"change the rules": 1, "lose the store": 1, "second writer": 1, "append": 2}
WEIGHTS: Final[Mapping[str, int]] = dict.fromkeys(_STEPS, 4) | _RARE


@contextlib.contextmanager
def _cut_reader(worker: Worker, dice: Random) -> Iterator[None]:
    """The worker reads batches of any size and stops after a quiet moment at the end of the journal."""
    turns = 0
    quiet_at = -1

    class CutReader(JournalReader):
        def read(self, after: int, *, rows: int = 5000, bytes_max: int = 16 << 20) -> list[Record]:
            nonlocal turns
            turns += 1
            assert turns < TURNS_MAX, "the worker makes no progress"
            return super().read(after, rows=dice.choice((2, 6, 40)), bytes_max=bytes_max)

        def wait(self, after: int, timeout_s: float) -> bool:
            nonlocal quiet_at
            if self.last_position() > after:
                return True
            if quiet_at < 0 and dice.random() < UNTIDIED:
                worker.stop()
                return True
            if quiet_at == after:
                worker.stop()
            quiet_at = after
            return False

    with put(worker_module, JournalReader=CutReader), put(worker_state, RETRY_S=(0.0,)):
        yield


def _passing_over(store_path: Path, deadly: set[str]) -> Crashes | None:
    if not deadly:
        return None
    crashes = Crashes(store_path)
    crashes._kept.deadly.update(dict.fromkeys(deadly, "named at two deaths"))
    return crashes


def _journal_id(records: Sequence[Record]) -> str:
    return next((one.journal_id for one in records if one.journal_id), "")
