"""Histories of a store that is filled from Kafka's partitions: deliveries of two journals, in chunks, again, in any
order between partitions; and of a consumer downstream that follows what is announced.

The flow, the applier and what publishes are the product's; the broker is lists, and time is the order of the steps.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from analytics.store import Batch, Place, Position, Store
from calls.errors import CalltallyError
from calls.model import CallKey
from calls.records import Outgoing, Topic
from streams import publishing as publishing_module
from streams.announce import APPLIED, Announcer
from streams.apply import Applier
from streams.fetches import Fetch
from streams.flow import Flow
from streams.kafka_state import KafkaState
from streams.publishing import Publishing
from streams.recent import RecentCalls
from tests.faults.histories.cluster import Cluster
from tests.faults.histories.grounds import Files, Ground, Kept, require_locked
from tests.faults.histories.law import RULES, THOROUGH, Law, contents
from tests.faults.histories.mishaps import AT_COMMITS, IN_STATEMENTS, Fault, Killed, put
from tests.faults.histories.traffic import SECOND
from tests.storing import everything, rows

ANNOUNCED_BYTES_MAX: Final = 1_000_000
WRITTEN_MAX: Final = 10
TURNS_MAX: Final = 60
ROUNDS_MAX: Final = 1_000_000


class Follower:
    """A consumer of what is announced, which passes over what is older than what it has of the same journal."""

    def __init__(self) -> None:
        self.calls: dict[bytes, Outgoing] = {}
        self.dead: set[bytes] = set()
        self._highest: dict[tuple[bytes, str], int] = {}

    def hear(self, told: Outgoing) -> None:
        """Raises AssertionError where a version falls while the store goes on."""
        if told.topic == Topic.DEAD:
            self.dead.add(told.key)
            return
        journal_id, version = _version(told)
        highest = self._highest.get((told.key, journal_id), version)
        assert version >= highest, f"the version of {told.key!r} falls from {highest} to {version} of {journal_id}"
        self._highest[told.key, journal_id] = version
        held = self.calls.get(told.key)
        if held is None or _version(held)[0] != journal_id or _version(held)[1] <= version:
            self.calls[told.key] = told

    def begin_again(self) -> None:
        """The store is an older one: what it knew before is told again."""
        self._highest.clear()


class World:
    """A cluster, a worker that reads it, its store, and a follower."""

    def __init__(self, folder: Path, ground: Ground, spare: Kept) -> None:
        """`spare` is a place to make the store anew in."""
        self.given: Counter[str] = Counter()
        self.ground = ground
        self.cluster: Cluster | None = None
        self.follower = Follower()
        self._spare = spare
        self._law = Law()
        self._loop = asyncio.new_event_loop()
        self._store: Store | None = None
        self._process: tuple[Applier, RecentCalls] | None = None
        self._took: Callable[[Batch], None] = lambda _: None

    def step(self, name: str, dice: Random) -> None:
        """Let one thing happen. Raises AssertionError or what the product raises where the store is not as it ought."""
        if self.cluster is None:
            self.cluster = Cluster(dice, self.given)
        _STEPS[name](self, self.cluster, dice)
        self._check(self.cluster)

    def finish(self, dice: Random) -> None:
        """Let relays and worker catch up; compare with a store that got the same in another order."""
        cluster = self.cluster
        if cluster is None:
            return
        cluster.relay(dice, all_of_it=True)
        self.work(cluster, dice)
        assert self._check(cluster) == set(cluster.records), "the worker stopped early"
        store = self.store()
        thorough = isinstance(self.ground, Files) or dice.random() < THOROUGH
        if thorough:
            assert store.verify() == []
        self._spare.begin()
        anew = self._spare.open()
        records = list(cluster.records.values())
        dice.shuffle(records)
        Applier(anew, RULES).apply(records, [Position(APPLIED, "anew/0", len(records))])
        for look in (contents, everything) if thorough else (contents,):
            one, other = look(store), look(anew)
            for table in one.keys() | other.keys():
                assert one.get(table) == other.get(table), f"table {table} differs from one filled in another order"
        assert _announced(store) == _announced(anew), "the same calls are announced with other versions"
        anew.close()

    def close(self) -> None:
        """Let go of the store."""
        self._loop.close()
        self.end()

    def end(self) -> None:
        """The process ends in order."""
        held, self._store, self._process = self._store, None, None
        if held is not None:
            self.ground.close(held)

    def store(self) -> Store:
        """The store, open from one step to the next."""
        if self._store is None:
            self._store = self.ground.open()
        return self._store

    def work(self, cluster: Cluster, dice: Random, fault: Fault | None = None, fetches: int | None = None) -> None:
        """Let the worker read on, through one fault of its store: until all is applied and told, or so many fetches."""
        store = self.store()
        if fault is not None:
            fault.break_into(store)
        try:
            self._loop.run_until_complete(self._run(cluster, store, dice, fetches))
        except Killed:
            self.die(store, dice)
        else:
            if fetches is None:
                self._require_told(store)
        if fault is not None:
            fault.mend(store)
            self.given[fault.kind] += fault.given

    def die(self, store: Store, dice: Random) -> None:
        """The process ends at once: what was not sent yet is forgotten."""
        self._store = self._process = None
        self.given["crashes"] += 1
        self.ground.die(store, dice, self.given)

    async def _run(self, cluster: Cluster, store: Store, dice: Random, fetches: int | None) -> None:
        if self._process is None:
            recent = RecentCalls(bytes_max=dice.choice((0, 10_000, 1 << 20)))
            self._process = Applier(store, RULES, recent=recent, on_commit=self._commit_heard), recent
        applier, recent = self._process
        for _ in range(TURNS_MAX):
            try:
                await self._session(cluster, store, applier, recent, dice, fetches)
                return
            except CalltallyError:
                applier.forget()
                store.reopen()
        raise AssertionError("the worker makes no progress")

    async def _session(
        self,
        cluster: Cluster,
        store: Store,
        applier: Applier,
        recent: RecentCalls,
        dice: Random,
        fetches: int | None,
    ) -> None:
        publishing = Publishing(Announcer(store, recent, record_bytes_max=ANNOUNCED_BYTES_MAX))
        self._took = publishing.took
        flow = Flow(store, applier, KafkaState(), cluster.held(), publishing)
        sending = asyncio.create_task(publishing.run(lambda batch: self._send(batch, dice)))
        try:
            with put(publishing_module, SAVE_S=dice.choice((0.0, 1e9)), GATHERED_S=0.0):
                await flow.assigned(cluster.logs)
                left = fetches
                while left != 0 and (read := _read(flow, cluster, dice)):
                    flow._apply(read)
                    for _ in range(dice.randrange(4)):
                        await asyncio.sleep(0)
                    if dice.random() < 0.1:
                        flow._tidy()
                    left = None if left is None else left - 1
                if fetches is None:
                    await _drained(publishing)
                if dice.random() < 0.3:
                    flow._tidy()
        finally:
            flow._thread.shutdown(wait=False)
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled() and (error := sending.exception()) is not None:
                raise error

    def _commit_heard(self, batch: Batch) -> None:
        self._took(batch)

    async def _send(self, batch: Sequence[Outgoing], dice: Random) -> None:
        for told in batch:
            if dice.random() < 0.2:
                await asyncio.sleep(0)
            self.follower.hear(told)
            self.given["announced"] += 1

    def _check(self, cluster: Cluster) -> set[Place]:
        """Whether the rows are a function of what is applied, and that holds all before the positions; what it is."""
        store = self.store()
        found = rows(store, "SELECT journal_id, position FROM kept.deliveries")
        applied = {Place(str(journal_id), int(str(position))) for journal_id, position in found}
        assert len(applied) == len(found), "a place is applied twice"
        assert applied <= set(cluster.records), "a row stands for nothing that was published"
        positions = store.positions()
        for slot, log in cluster.logs.items():
            reached = positions.get((APPLIED, cluster.stream_of(slot)), 0)
            assert reached <= len(log)
            missing = {written.place for written in log[:reached] if written.place is not None} - applied
            assert not missing, f"{slot} is applied to {reached}, but these are not: {missing}"
        self._law.require(store, self._law.of(cluster.records[place] for place in applied))
        return applied

    def _require_told(self, store: Store) -> None:
        """Everything that is stored was announced, and a follower has it as it is stored."""
        for key, told in _announced(store).items():
            held = self.follower.calls.get(key)
            assert held is not None, f"call {key!r} is stored, but was never announced"
            assert _said(held) == _said(told), f"the follower's call {key!r} is not the stored one"
        letters = rows(store, "SELECT journal_id || ':' || position FROM kept.dead_letters")
        missing = {str(key).encode() for (key,) in letters} - self.follower.dead
        assert not missing, f"these dead letters were never announced: {missing}"


def _append(world: World, cluster: Cluster, dice: Random) -> None:
    cluster.write(dice, dice.randint(1, WRITTEN_MAX))
    cluster.relay(dice, all_of_it=False)


def _append_and_work(world: World, cluster: Cluster, dice: Random) -> None:
    _append(world, cluster, dice)
    world.work(cluster, dice)


def _work_through(kind: str) -> Callable[[World, Cluster, Random], None]:
    def step(world: World, cluster: Cluster, dice: Random) -> None:
        _append(world, cluster, dice)
        world.work(cluster, dice, Fault.drawn(kind, dice))

    return step


def _die_between(world: World, cluster: Cluster, dice: Random) -> None:
    """Some fetches are committed, and perhaps not all of what follows is sent."""
    _append(world, cluster, dice)
    world.work(cluster, dice, fetches=dice.randint(1, 5))
    world.die(world.store(), dice)
    if dice.random() < 0.5:
        world.work(cluster, dice)


def _rebalance(world: World, cluster: Cluster, dice: Random) -> None:
    """The partitions are taken away and given again in the midst of it."""
    _append(world, cluster, dice)
    for _ in range(dice.randint(1, 3)):
        world.work(cluster, dice, fetches=dice.randint(0, 3))
    world.given["rebalances"] += 1


def _repeat(world: World, cluster: Cluster, dice: Random) -> None:
    cluster.repeat(dice)
    _append_and_work(world, cluster, dice)


def _add_partitions(world: World, cluster: Cluster, dice: Random) -> None:
    cluster.add_partitions(dice.randint(1, 2))
    world.given["partitions added"] += 1
    if dice.random() < 0.5:
        cluster.repeat(dice)
    _append_and_work(world, cluster, dice)


def _disturb(world: World, cluster: Cluster, dice: Random) -> None:
    cluster.disturb(dice)
    _append_and_work(world, cluster, dice)


def _second_writer(world: World, cluster: Cluster, dice: Random) -> None:
    world.store()
    require_locked(world.ground)
    world.given["second writers"] += 1


def _copy_store(world: World, cluster: Cluster, dice: Random) -> None:
    world.end()
    world.ground.copy()


def _put_old_copy_back(world: World, cluster: Cluster, dice: Random) -> None:
    _append(world, cluster, dice)
    world.end()
    world.given["old copies put back"] += world.ground.put_back()
    world.follower.begin_again()
    world.work(cluster, dice)


def _lose_store(world: World, cluster: Cluster, dice: Random) -> None:
    world.end()
    world.ground.lose(to_others=False)
    world.given["stores lost"] += 1
    world.follower.begin_again()
    world.work(cluster, dice)


def _rot(world: World, cluster: Cluster, dice: Random) -> None:
    cluster.write(dice, dice.randint(1, WRITTEN_MAX), rotten=True)
    cluster.relay(dice, all_of_it=True)
    world.work(cluster, dice)


def _jump_clock(world: World, cluster: Cluster, dice: Random) -> None:
    cluster.jump_clock(dice.choice((-1, 1)) * dice.choice((1, 3_600, 86_400, 40 * 86_400)) * SECOND)
    world.given["clock jumps"] += 1
    _append_and_work(world, cluster, dice)


_STEPS: Final[Mapping[str, Callable[[World, Cluster, Random], None]]] = {
    "append": _append,
    "append and work": _append_and_work,
    **{kind: _work_through(kind) for kind in sorted(IN_STATEMENTS | AT_COMMITS)},
    "die between batches": _die_between,
    "rebalance": _rebalance,
    "publish again": _repeat,
    "add partitions": _add_partitions,
    "foreign record": _disturb,
    "second writer": _second_writer,
    "copy the store": _copy_store,
    "put the old copy back": _put_old_copy_back,
    "lose the store": _lose_store,
    "damage a journal": _rot,
    "clock jumps": _jump_clock,
}
_RARE: Final = {"lose the store": 1, "second writer": 1, "append": 2}
WEIGHTS: Final[Mapping[str, int]] = dict.fromkeys(_STEPS, 4) | {"add partitions": 8} | _RARE


def _read(flow: Flow, cluster: Cluster, dice: Random) -> list[Fetch]:
    """One or more fetches of what comes next, of some partitions, perhaps with what was read already before it."""
    found = []
    at = {slot: partition.next for slot, partition in flow._partitions.items()}
    for _ in range(dice.randint(1, 2)):
        more = [slot for slot, offset in at.items() if offset < len(cluster.logs[slot])]
        if not more:
            break
        records = {}
        for slot in dice.sample(more, dice.randint(1, len(more))):
            end = at[slot] + dice.choice((1, 2, 5, 20))
            records[slot] = cluster.logs[slot][max(0, at[slot] - dice.choice((0, 0, 0, 3))) : end]
            at[slot] = min(end, len(cluster.logs[slot]))
        found.append(Fetch(records, {slot: len(cluster.logs[slot]) for slot in records}))
    return found


async def _drained(publishing: Publishing) -> None:
    """Let the others go on until all is sent; in rounds of the loop, which are the same at every repetition."""
    for _ in range(ROUNDS_MAX):
        if not (publishing._waiting or publishing._sending):
            return
        await asyncio.sleep(0)
    raise AssertionError("what is to be told is not sent")


def _announced(store: Store) -> dict[bytes, Outgoing]:
    """What would be said of every call as it is stored."""
    keys = [CallKey(*map(str, row)) for row in rows(store, "SELECT provider, org, call_id FROM kept.calls")]
    told = Announcer(store, RecentCalls(), record_bytes_max=ANNOUNCED_BYTES_MAX).records(keys)
    assert len(told) == len(keys)
    return {outgoing.key: outgoing for outgoing in told}


def _said(told: Outgoing) -> dict[str, object]:
    """Without the version: it also rises with a repeat, which is no news."""
    call: dict[str, object] = msgspec.json.decode(told.value)
    return {name: value for name, value in call.items() if name not in ("version", "journal_id")}


def _version(told: Outgoing) -> tuple[str, int]:
    headers = dict(told.headers)
    return headers["journal_id"].decode(), int(headers["version"])
