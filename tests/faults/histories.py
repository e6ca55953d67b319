"""Seeded histories of journal, steps, fold and store: whatever happens between, the rows follow from the journal.

The parts are the real ones: a journal, a worker, a store, each in files that lie in memory. A history is a list of
steps drawn from its seed, each with dice of its own, so that some can be left out of a failing history while the others
stay what they are. After every step the store is compared with what a plain reading of the journal's beginning gives,
without the store's own bookkeeping; at the end with a rebuild, byte by byte.

`python -m tests.faults.histories --count 20000` runs so many in several processes; `--seed 17` runs that one.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple

import duckdb
import msgspec
import structlog

from analytics import store as store_module
from analytics.store import Position, Store
from calls.errors import CalltallyError, StoreLocked
from calls.journal import Append, Journal, JournalReader, NewDelivery, NewNotice
from calls.journal_row import Damaged, Record
from calls.model import Call, CallEvent, CallKey, Delivery, Micros, Notice, Rules, TimelineEvent, Verdict, delivery_id
from calls.provider import Provider, discover
from calls.traffic import one_call
from streams import steps, worker_state
from streams import worker as worker_module
from streams.apply import JOURNAL, Applier
from streams.fold import fold
from streams.rebuild import rebuild
from streams.recent import RecentCalls
from streams.worker import Worker
from tests.faults.power_cuts import memory_folder
from tests.journalling import Answers, edit
from tests.storing import everything, rows

NOON: Final[Micros] = 1_780_315_200_000_000
SECOND: Final = 1_000_000
RULES: Final = Rules(success={"interested": "met", "qualified": "partly"})
OTHER_RULES: Final = Rules(success_criterion="another")
STEPS: Final = (4, 9)
TURNS_MAX: Final = 60
"""A worker that has not caught up after so many attempts is stuck."""
POISON: Final = b"poison-raises"
UNSTORABLE: Final = b"poison-unstorable"
STRANGE_BODIES: Final = (
    b"not JSON", b"", b"[]", b"{}", b"\xff\xfe", b'{"call_id": NaN}', b'{"a":' * 80 + b"1" + b"}" * 80,
    b'{"event":"call.ended","data":{"call_id":null}}',
    b'{"event":"call.ended","data":{"call_id":"x","duration":"long"}}',
    b'{"event":"call.ended","timestamp":1e400,"data":{"call_id":"x"}}',
    b'{"event":"call.ended","data":{"call_id":"x","n":123456789012345678901234567890}}',
    b'{"event":"' + POISON + b'","data":{"call_id":"c1"}}', b'{"event":"' + UNSTORABLE + b'","data":{"call_id":"c1"}}',
)  # fmt: skip

_PROVIDERS: Final = discover()


class Broken(AssertionError):
    """A history in which the store is not what the journal says."""


class Killed(BaseException):
    """Stands for the death of the process: nothing catches it and nothing is tidied up."""


class Step(NamedTuple):
    """What happens next, and its dice."""

    name: str
    seed: str


def history_of(seed: int) -> list[Step]:
    """The steps of a history."""
    dice = Random(seed)
    names, weights = zip(*_WEIGHTS.items(), strict=True)
    drawn = dice.choices(names, weights, k=dice.randint(*STEPS))
    return [Step(name, f"{seed}/{number}") for number, name in enumerate(["append", *drawn])]


def run_history(history: Sequence[Step], folder: Path, template: Path | None = None) -> Counter[str]:
    """Play it in an empty folder; how often each kind of fault was given. Raises Broken.

    `template` is a closed, empty store to begin with, since making the tables takes longer than all the rest.
    """
    world = World(folder, template)
    if template is not None:
        shutil.copy(template, world.store_path)
    with contextlib.closing(world), _poisonous_provider(), _small_limits():
        for number, step in enumerate(history):
            dice = Random(step.seed)
            try:
                _STEPS[step.name](world, dice)
                world.check()
            except (AssertionError, CalltallyError, duckdb.Error) as error:
                raise Broken(f"at step {number + 1} ({step.name}): {type(error).__name__}: {error}") from error
        try:
            world.finish(Random(f"{history}"))
        except (AssertionError, CalltallyError, duckdb.Error) as error:
            raise Broken(f"at the end: {type(error).__name__}: {error}") from error
    return world.given


def shrunk(history: Sequence[Step], folder: Path) -> list[Step]:
    """A part of a failing history that still fails, with no step in it that could be left out."""
    kept = list(history)
    at = len(kept) - 1
    while at >= 0:
        fewer = kept[:at] + kept[at + 1 :]
        if _fails(fewer, folder):
            kept = fewer
        at = min(at, len(kept)) - 1
    return kept


@dataclass
class World:
    """One data folder, and what is known of it without asking the store."""

    folder: Path
    template: Path | None
    given: Counter[str] = field(default_factory=Counter)
    clock: Micros = NOON
    sent: list[NewDelivery] = field(default_factory=list)
    old_copy: Path | None = None
    _told: list[Record] = field(default_factory=list)
    _held: Store | None = None

    @property
    def journal_path(self) -> Path:
        return self.folder / "journal.sqlite"

    @property
    def store_path(self) -> Path:
        return self.folder / "store.duckdb"

    def append(self, records: Sequence[NewDelivery | NewNotice]) -> None:
        answers = Answers()
        journal = Journal(self.journal_path, on_committed=answers)
        try:
            for record in records:
                journal.append(Append(record))
            answers.wait_durable(len(records))
        finally:
            journal.close()
        self.sent += [record for record in records if isinstance(record, NewDelivery)]
        self._told.clear()

    def records(self) -> list[Record]:
        """The whole journal."""
        if not self._told and self.journal_path.exists():
            reader = JournalReader(self.journal_path)
            self._told = reader.read(0, rows=1_000_000, bytes_max=1 << 40)
            reader.close()
        return self._told

    def store(self) -> Store:
        """The store, open from one step to the next, since opening takes longer than most steps."""
        if self._held is None:
            self._held = Store.open(self.store_path, rules=RULES)
        return self._held

    def close(self) -> None:
        """Let go of the store."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def remove_store(self) -> None:
        self.close()
        for file in (self.store_path, _wal(self.store_path)):
            file.unlink(missing_ok=True)

    def work(self, dice: Random, fault: Fault | None = None) -> None:
        """Let a worker catch up, with batches of any size, through one fault of its store."""
        worker = Worker(self.journal_path, self.store, RULES, store_path=self.store_path)
        with _cut_reader(worker, dice):
            store = worker.open()
            if fault is not None:
                fault.break_into(store)
            try:
                worker.run()
            except Killed:
                self._die(store, dice)
                self.given[f"killed, {fault}"] += 1
            else:
                assert worker.state.fault is None, worker.state.fault
                if fault is not None:
                    fault.mend(store)
                    self.given[str(fault)] += fault.given

    def check(self) -> None:
        """Whether the rows are a function of the journal's beginning up to the store's position."""
        if not self.journal_path.exists():
            return
        store = self.store()
        positions = store.positions()
        assert {stream for stream, _ in positions} <= {JOURNAL}
        applied = max(positions.values(), default=0)
        assert applied <= len(self.records())
        self._compare(store, self.records()[:applied])
        assert store.verify() == []

    def finish(self, dice: Random) -> None:
        """Let the worker catch up, and compare all public columns with a store that is made anew."""
        if not self.journal_path.exists():
            return
        self.work(dice)
        self.check()
        incremental = everything(self.store())
        assert max(self.store().positions().values(), default=0) == len(self.records()), "the worker stopped early"
        with contextlib.closing(self._made_anew(dice)) as whole:
            anew = everything(whole)
        for table in sorted(incremental.keys() | anew.keys()):
            assert incremental.get(table) == anew.get(table), f"table {table} differs from a rebuild"

    def _made_anew(self, dice: Random) -> Store:
        path = self.folder / "whole.duckdb"
        if self.template is None or dice.random() < 0.1:
            rebuild(self.journal_path, path, RULES)
            return Store.open(path, rules=RULES)
        shutil.copy(self.template, path)
        store, records = Store.open(path, rules=RULES), self.records()
        if records:
            Applier(store, RULES).apply(records, [Position(JOURNAL, _journal_id(records), len(records))])
        return store

    def _compare(self, store: Store, records: Sequence[Record]) -> None:
        expected = expectation(records)
        found = rows(store, "SELECT position, id, verdict FROM deliveries ORDER BY position")
        assert found == expected.deliveries, _difference("deliveries", found, expected.deliveries)
        letters = rows(store, "SELECT position, reason FROM dead_letters ORDER BY position")
        assert letters == expected.dead_letters, _difference("dead letters", letters, expected.dead_letters)
        events = rows(store, "SELECT event_id FROM call_events UNION ALL SELECT event_id FROM other_events ORDER BY 1")
        assert [event for (event,) in events] == expected.event_ids, "events differ"
        assert rows(store, "SELECT count(*) FROM calls") == [(len(expected.calls),)]
        calls = store.stored_calls(list(expected.calls))
        for key, call in expected.calls.items():
            assert key in calls, f"call {key} is missing"
            assert calls[key].call == call, _difference(f"call {key}", calls[key].call, call)

    def _die(self, store: Store, dice: Random) -> None:
        """What a killed process leaves: the files as they are now, perhaps with the log's last write torn."""
        left = self.folder / "left"
        left.mkdir()
        for file in (self.store_path, _wal(self.store_path)):
            if file.exists():
                shutil.copy(file, left / file.name)
        self.remove_store()
        for file in (self.store_path, _wal(self.store_path)):
            if (left / file.name).exists():
                (left / file.name).rename(file)
        left.rmdir()
        wal = _wal(self.store_path)
        if wal.exists() and dice.random() < 0.5:
            size = wal.stat().st_size
            os.truncate(wal, max(0, size - dice.randint(1, 3000)))
            self.given["log torn"] += 1


class Expectation(NamedTuple):
    """What the store is to hold after some records."""

    deliveries: list[tuple[object, ...]]
    dead_letters: list[tuple[object, ...]]
    event_ids: list[str]
    calls: dict[CallKey, Call]


def expectation(records: Sequence[Record]) -> Expectation:
    """Read off a plain list of records, the lowest of equal deliveries first."""
    verdicts: dict[int, tuple[str | None, str]] = {}
    letters: list[tuple[object, ...]] = []
    events: list[TimelineEvent] = []
    seen: set[str] = set()
    deliveries = [record for record in records if isinstance(record, Delivery)]
    for record in records:
        if isinstance(record, Damaged):
            verdicts[record.position] = None, "accepted"
            letters.append((record.position, "journal_damaged"))
        elif isinstance(record, Notice):
            verdicts[record.position] = record.id, str(record.verdict)
    for record in sorted(deliveries, key=lambda one: (one.received_at, one.journal_id, one.position)):
        verdicts[record.position] = record.id, "repeated" if record.id in seen else "accepted"
        if record.id in seen:
            continue
        seen.add(record.id)
        meaning = steps.interpret(record)
        if not isinstance(meaning, list):
            letters.append((record.position, meaning.reason))
        elif UNSTORABLE in record.body:
            letters.append((record.position, "not_storable"))
        else:
            events += meaning
    calls: dict[CallKey, list[TimelineEvent]] = {}
    for timed in events:
        if timed.event.call_id is not None:
            calls.setdefault(CallKey(timed.provider, timed.event.org, timed.event.call_id), []).append(timed)
    return Expectation(
        [(position, *told) for position, told in sorted(verdicts.items())],
        sorted(letters, key=lambda letter: letter[0] if isinstance(letter[0], int) else 0),
        sorted(timed.event_id for timed in events),
        {key: fold(told, RULES) for key, told in calls.items()},
    )


@dataclass
class Fault:
    """Something that goes wrong in one statement of the store's writer, from the `after`-th on."""

    kind: str
    after: int
    given: bool = False

    def __str__(self) -> str:
        return self.kind

    def break_into(self, store: Store) -> None:
        store._writer = _Breaking(store._writer, self)  # type: ignore[assignment]

    def mend(self, store: Store) -> None:
        writer: object = store._writer
        if isinstance(writer, _Breaking):
            store._writer = writer.real

    def execute(self, run: Callable[[], object], text: str) -> object:
        commit = text == "COMMIT"
        if self.given or (self.kind not in {"statement fails", "killed in a statement"} and not commit):
            return run()
        self.after -= 1
        if self.after > 0:
            return run()
        self.given = True
        match self.kind:
            case "statement fails" | "commit fails":
                raise duckdb.IOException("IO Error: made to fail")
            case "commit fails but happened":
                run()
                raise duckdb.IOException("IO Error: made to fail after all was written")
            case "killed after a commit":
                run()
                raise Killed
            case _:
                raise Killed


class _Breaking:
    """A writer's connection with a fault in it."""

    def __init__(self, real: duckdb.DuckDBPyConnection, fault: Fault) -> None:
        self.real = real
        self._fault = fault

    def execute(self, text: str, *parameters: object) -> object:
        return self._fault.execute(lambda: self.real.execute(text, *parameters), text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


# The steps


def _append(world: World, dice: Random) -> None:
    world.append([_record(world, dice) for _ in range(dice.randint(1, 25))])


def _append_and_work(world: World, dice: Random) -> None:
    _append(world, dice)
    world.work(dice)


def _work_through(kind: str, statements: tuple[int, int]) -> Callable[[World, Random], None]:
    def step(world: World, dice: Random) -> None:
        _append(world, dice)
        world.work(dice, Fault(kind, dice.randint(*statements)))

    return step


def _repeat(world: World, dice: Random) -> None:
    """Hand in records again that are applied, as after a commit whose answer was lost."""
    store = world.store()
    for (stream, journal_id), position in store.positions().items():
        again = world.records()[dice.randint(0, position) : position]
        if again:
            recent = RecentCalls(bytes_max=dice.choice((0, 10_000, 1 << 20)))
            Applier(store, RULES, recent=recent).apply(again, [Position(stream, journal_id, again[-1].position)])


def _second_writer(world: World, dice: Random) -> None:
    """A second writer is not let in, and changes nothing by trying."""
    world.store()
    try:
        Store.open(world.store_path, rules=RULES).close()
    except StoreLocked:
        return
    raise AssertionError("a second writer was let in")


def _copy_store(world: World, dice: Random) -> None:
    world.close()
    if world.store_path.exists():
        world.old_copy = world.folder / "old.duckdb"
        shutil.copy(world.store_path, world.old_copy)


def _put_old_copy_back(world: World, dice: Random) -> None:
    _append(world, dice)
    if world.old_copy is not None:
        world.remove_store()
        shutil.copy(world.old_copy, world.store_path)
    world.work(dice)


def _lose_store(world: World, dice: Random) -> None:
    world.remove_store()
    world.work(dice)


def _change_rules(world: World, dice: Random) -> None:
    world.remove_store()
    Store.open(world.store_path, rules=OTHER_RULES).close()
    world.work(dice)


def _damage_journal(world: World, dice: Random) -> None:
    """A row of the journal rots before it is applied."""
    applied = len(world.records())
    _append(world, dice)
    last = len(world.records())
    edit(world.journal_path, "UPDATE rows SET head = ? WHERE position = ?", "{}", dice.randint(applied + 1, last))
    world._told.clear()
    world.work(dice)


def _jump_clock(world: World, dice: Random) -> None:
    world.clock += dice.choice((-1, 1)) * dice.choice((1, 3_600, 86_400, 40 * 86_400)) * SECOND
    _append(world, dice)
    world.work(dice)


_STEPS: Final[dict[str, Callable[[World, Random], None]]] = {
    "append": _append,
    "append and work": _append_and_work,
    "statement fails": _work_through("statement fails", (1, 25)),
    "commit fails": _work_through("commit fails", (1, 3)),
    "commit fails but happened": _work_through("commit fails but happened", (1, 3)),
    "killed before a commit": _work_through("killed before a commit", (1, 3)),
    "killed after a commit": _work_through("killed after a commit", (1, 3)),
    "killed in a statement": _work_through("killed in a statement", (1, 25)),
    "repeat": _repeat,
    "second writer": _second_writer,
    "copy the store": _copy_store,
    "put the old copy back": _put_old_copy_back,
    "lose the store": _lose_store,
    "change the rules": _change_rules,
    "damage the journal": _damage_journal,
    "clock jumps": _jump_clock,
}
_WEIGHTS: Final = dict.fromkeys(_STEPS, 4) | {"change the rules": 1, "lose the store": 1, "append": 2}


def _record(world: World, dice: Random) -> NewDelivery | NewNotice:
    world.clock += dice.randint(0, 5 * SECOND)
    kind = dice.random()
    if kind < 0.12 and world.sent:
        return msgspec.structs.replace(dice.choice(world.sent), received_at=world.clock)
    if kind < 0.2:
        return _notice(world, dice)
    if kind < 0.3:
        return _delivery(dice.choice(["aisync", "synthflow", "callsync"]), dice.choice(STRANGE_BODIES), world.clock)
    # Few callers, so that events of one call come in several batches and in any order.
    ended_at = NOON + dice.randint(0, 50) * SECOND
    name = dice.choice(list(_PROVIDERS))
    post = dice.choice(one_call(_PROVIDERS[name], dice=Random(dice.randint(0, 12)), ended_at=ended_at))
    return _delivery(name, post.body, world.clock)


def _delivery(provider: str, body: bytes, received_at: Micros) -> NewDelivery:
    return NewDelivery(
        source=provider,
        provider=provider,
        org="",
        body=body,
        headers={"content-type": "application/json"},
        received_at=received_at,
        trust=_PROVIDERS[provider].scheme.trust,
        id=delivery_id(provider, body),
    )


def _notice(world: World, dice: Random) -> NewNotice:
    return NewNotice(
        source="aisync",
        provider="aisync",
        verdict=dice.choice((Verdict.REFUSED, Verdict.REPEATED, Verdict.INBOUND)),
        reason=None,
        detail=None,
        id=None,
        bytes=dice.randint(0, 100),
        count=dice.randint(1, 5),
        received_at=world.clock,
    )


# What makes it quick and deterministic


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
            return super().read(after, rows=dice.choice((1, 2, 5, 12, 40)), bytes_max=bytes_max)

        def wait(self, after: int, timeout_s: float) -> bool:
            nonlocal quiet_at
            if self.last_position() > after:
                return True
            if quiet_at == after:
                worker.stop()
            quiet_at = after
            return False

    with _set(worker_module, JournalReader=CutReader), _set(worker_state, RETRY_S=(0.0,)):
        yield


@contextlib.contextmanager
def _poisonous_provider() -> Iterator[None]:
    """Every provider's normaliser has a bug that shows on poison: one raises, one gives what no column takes."""
    poisonous = MappingProxyType({name: _with_bugs(provider) for name, provider in _PROVIDERS.items()})
    with _set(steps, discover=lambda: poisonous):
        yield


def _with_bugs(provider: Provider) -> Provider:
    right = provider.normalise

    def normalise(delivery: Delivery) -> list[CallEvent]:
        if POISON in delivery.body:
            raise ZeroDivisionError("a bug")
        if UNSTORABLE in delivery.body:
            return [CallEvent(event="poison", call_id="c9", org="", happened_at=2**70)]
        return right(delivery)

    return replace(provider, normalise=normalise)


@contextlib.contextmanager
def _small_limits() -> Iterator[None]:
    """Roll-ups are settled and the log is copied often."""
    with _set(store_module, SETTLE_ROWS=40, CHECKPOINT_WAL_BYTES=50_000):
        yield


@contextlib.contextmanager
def _set(module: object, **values: object) -> Iterator[None]:
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def _journal_id(records: Sequence[Record]) -> str:
    return next((record.journal_id for record in records if record.journal_id), "")


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _difference(what: str, found: object, expected: object) -> str:
    if isinstance(found, list) and isinstance(expected, list):
        missing = [one for one in expected if one not in found][:3]
        extra = [one for one in found if one not in expected][:3]
        return f"{what}: missing {missing}, too many {extra}"
    if isinstance(found, dict) and isinstance(expected, dict):
        return f"{what}: " + str({k: (v, expected.get(k)) for k, v in found.items() if v != expected.get(k)})
    return what


def _fails(history: Sequence[Step], folder: Path) -> bool:
    with empty(folder) as place:
        try:
            run_history(history, place)
        except Broken:
            return True
        return False


@contextlib.contextmanager
def empty(folder: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    place = folder / "history"
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def run_seeds(seeds: Sequence[int], folder: Path) -> Counter[str]:
    """Run these histories; how often each fault was given. Raises Broken with seed and shrunk steps for the first that
    fails."""
    given: Counter[str] = Counter()
    template = folder / "template.duckdb"
    Store.open(template, rules=RULES).close()
    with quiet():
        for seed in seeds:
            history = history_of(seed)
            try:
                with empty(folder) as place:
                    given += run_history(history, place, template)
            except Broken as error:
                steps_left = [step.name for step in shrunk(history, folder)]
                raise Broken(f"seed {seed}: {error}. Shrunk to: {steps_left}") from error
            given["histories"] += 1
            given["steps"] += len(history)
    return given


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The product logs every fault as it should; thousands of them tell nothing."""
    before = structlog.get_config()
    only_critical = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=only_critical, cache_logger_on_first_use=False)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**before)


def _seeds_apart(seeds: Sequence[int]) -> tuple[Counter[str], str]:
    folder = memory_folder("histories-")
    try:
        return run_seeds(seeds, folder), ""
    except Broken as error:
        return Counter(), str(error)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.count) if asked.seed is None else range(asked.seed, asked.seed + 1)
    began = time.monotonic()
    given: Counter[str] = Counter()
    broken = []
    pieces = [seeds[at : at + 20] for at in range(0, len(seeds), 20)]
    with multiprocessing.get_context("spawn").Pool(min(asked.processes, len(pieces)), maxtasksperchild=50) as pool:
        for found, failure in pool.imap_unordered(_seeds_apart, pieces):
            given += found
            if failure:
                broken.append(failure)
                print(failure, flush=True)
    took = time.monotonic() - began
    for name, count in sorted(given.items()):
        print(f"{name}: {count}")
    print(f"{len(broken)} broken, {took:.0f} s, {given['histories'] / took:.1f} histories a second")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
