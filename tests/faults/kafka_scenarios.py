"""What is done to the way through Kafka under load, with a real broker; each scenario is one run, as in `scenarios`."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from calls import relay_report
from tests.faults import planted
from tests.faults.cast import Actor, Folder
from tests.faults.driver import Driver
from tests.faults.scenarios import Outcome, Reaper, compare
from tests.kafka.proxy import Proxy, proxy
from tests.kafka.reading import DELIVERIES, NOTICES, administrating
from tests.waiting import until
from tools.kafka.broker import Node, cluster

PER_S: Final = 80.0
WORKER: Final = ("worker", "--kafka")
POINT_S: Final = 8.0
"""A worker takes some seconds until it is given its partitions."""
LONG_PAUSE_S: Final = 30.0
MANY: Final = 8
"""From so many troubles on one of them is a long pause."""


def kafka(path: Path, seed: int, count: int) -> Outcome:
    """SIGKILL of ingest, relay and Kafka worker, at random instants and at named points, `count` times in all."""
    with _run(path, seed) as run:
        actors = [run.actor("ingest"), run.actor("relay"), run.actor(*WORKER)]
        reapers = [Reaper(actor, Random(f"{seed} {actor.name}"), point_s=POINT_S) for actor in actors]

        def kill(actor: Actor, reaper: Reaper) -> None:
            reaper.run(count // len(actors))
            actor.start()  # so that those who die longer have something to do

        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(kill, *both) for both in zip(actors, reapers, strict=True)]:
                done.result()
        return run.compare(sum((reaper.at for reaper in reapers), Counter()))


def broker(path: Path, seed: int, count: int) -> Outcome:
    """The broker is killed, paused, cut off and unheard, `count` times in all, while relay and worker are killed."""
    with proxy() as before, _run(path, seed, before) as run:
        victims = [run.actor("relay"), run.actor(*WORKER)]
        run.start("ingest")
        reapers = [
            Reaper(actor, Random(f"{seed} {actor.name}"), point_s=POINT_S, instant_s=12.0, patience_s=POINT_S)
            for actor in victims
        ]
        trouble = _Trouble(run.node, before, Random(f"{seed} broker"))
        enough = threading.Event()
        with ThreadPoolExecutor() as pool:
            killing = [pool.submit(reaper.run_until, enough) for reaper in reapers]
            try:
                trouble.make(count)
            finally:
                enough.set()
            for done in killing:
                done.result()
        outcome = run.compare(sum((reaper.at for reaper in reapers), Counter()))
        outcome.at += trouble.made
        return outcome


def two_workers(path: Path, seed: int, count: int) -> Outcome:
    """Two workers are started at once on one store: one serves, the other ends with an error; the first is killed."""
    dice = Random(seed)
    with _run(path, seed) as run:
        run.start("ingest", "relay")
        twins = [run.actor(*WORKER), run.actor(*WORKER, name="twin")]
        for _ in range(count):
            dice.shuffle(twins)
            for twin in twins:
                twin.start()
                threading.Event().wait(dice.choice([0.0, 0.0, 0.3]))
            until(lambda: sum(twin.alive for twin in twins) < 2, "one of two workers has ended")
            served = [twin for twin in twins if twin.alive]
            assert len(served) == 1, "neither of two workers stays"
            assert [twin.code for twin in twins if twin not in served] == [1]
            served[0].await_ready()
            threading.Event().wait(dice.uniform(0, 1.5))
            assert served[0].kill() == -9
        return run.compare(Counter({"a worker beside a second one": count}))


def rebalance(path: Path, seed: int, count: int) -> Outcome:
    """Another consumer joins the worker's group and leaves it, and partitions are added, `count` times, under load."""
    dice = Random(seed)
    with _run(path, seed) as run:
        run.start("ingest", "relay", "worker")
        worker = run.actor(*WORKER)
        stranger = Actor(
            Folder(path / "stranger", kafka=run.bootstrap), "stranger", *WORKER, fault="a stranger in the group"
        )
        partitions = 4
        for number in range(count):
            stranger.start()
            threading.Event().wait(dice.uniform(4, 10))
            if number % 2 == 0:
                partitions += 1
                with administrating(run.bootstrap) as client:
                    client.create_partitions({DELIVERIES: partitions, NOTICES: partitions})
            threading.Event().wait(dice.uniform(0, 3))
            assert stranger.alive, "the stranger ended by itself"
            stranger.kill() if dice.random() < 0.5 else stranger.stop()
            threading.Event().wait(dice.uniform(0, 3))
        assert worker.alive, "the worker ended by itself"
        outcome = run.compare(Counter({"a stranger in the group": count}))
        outcome.kills = 0
        return outcome


def slow_store(path: Path, seed: int, count: int) -> Outcome:
    """The worker's store takes longer than a session of Kafka's lasts, and the worker is killed `count` times."""
    dice = Random(seed)
    with _run(path, seed) as run:
        run.start("ingest", "relay")
        worker = run.actor(*WORKER, fault="a store that takes its time")
        worker.start()
        at: Counter[str] = Counter()
        for _ in range(count):
            worker.await_ready()
            threading.Event().wait(dice.uniform(1, planted.SLOW_S + 3))
            assert worker.kill() == -9, "the worker ended by itself"
            at["worker with a slow store"] += 1
            worker.start()
        worker.await_ready()
        return run.compare(at)


def fault(path: Path, seed: int, name: str) -> Outcome:
    """One of `planted.KAFKA_FAULTS`, with the deaths that bring it out."""
    mistake = planted.ALL[name]
    with _run(path, seed, steady=True) as run:
        actors = [
            run.actor(*words, fault=name if " ".join(words) == mistake.process else None)
            for words in (("ingest",), ("relay",), WORKER)
        ]
        for _ in range(2):
            for actor in actors:
                actor.kill() if actor.alive else None
            began = time.time()
            for actor in actors:
                actor.start()
            for actor in actors:
                actor.await_ready()
            until(lambda: _publishes(run.folder, began), "the relay publishes")  # noqa: B023
            # In the middle of the second that the planted relay rests between remembering and sending.
            threading.Event().wait(0.5)
        return run.compare(Counter())


def _publishes(folder: Folder, since: float) -> bool:
    """Whether a relay that started after that has had an acknowledgement."""
    told = relay_report.read(folder.journal.parent)
    return told is not None and told.written_at > since * 1e6 and told.published > 0


@dataclass
class _Run:
    """A broker, a folder whose processes use it, and a driver that sends."""

    folder: Folder
    node: Node
    driver: Driver
    bootstrap: str
    """Of the broker itself, whatever stands before it for those under test."""
    actors: dict[str, Actor] = field(default_factory=dict)
    driven: bool = True

    def actor(self, *words: str, name: str = "", fault: str | None = None) -> Actor:
        """The one with these words, `name` where there is more than one."""
        named = name or words[0]
        if named not in self.actors:
            self.actors[named] = Actor(self.folder, named, *words, fault=fault)
        return self.actors[named]

    def start(self, *names: str) -> None:
        for name in names:
            actor = self.actor(*WORKER) if name == "worker" else self.actor(name)
            actor.start()
            actor.await_ready()

    def compare(self, at: Counter[str]) -> Outcome:
        """Make sure that all processes work, stop sending, and compare."""
        actors = [actor for name, actor in self.actors.items() if name != "twin"]
        for actor in actors:
            if not actor.alive:
                actor.start()
        for actor in actors:
            actor.await_ready()
        self.stop_sending()
        outcome = compare(self.folder, self.driver, actors, kafka=self.bootstrap)
        outcome.kills, outcome.at = at.total(), at
        return outcome

    def stop_sending(self) -> None:
        if self.driven:
            self.driven = False
            self.driver.stop()


@contextmanager
def _run(path: Path, seed: int, before: Proxy | None = None, *, steady: bool = False) -> Iterator[_Run]:
    """Everything but the processes under test; those that live are killed at the end."""
    # The clients that look after the broker tell of every fault that is made here.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    through = {} if before is None else {"PROXIED": before.port}
    with cluster(path / "kafka", listeners=dict.fromkeys(through, "PLAINTEXT"), advertised=through) as made:
        bootstrap = made.bootstrap
        if before is not None:
            before.target = ("127.0.0.1", made.nodes[0].ports["PROXIED"])
            bootstrap = f"127.0.0.1:{before.port}"
        folder = Folder(path, kafka=bootstrap)
        driver = Driver(folder.ports["ingest"], folder.ledger, seed, per_s=PER_S, steady=steady, long=True)
        run = _Run(folder, made.nodes[0], driver, made.bootstrap)
        driver.start()
        try:
            yield run
        finally:
            run.stop_sending()
            for actor in run.actors.values():
                actor.kill() if actor.alive else None


class _Trouble:
    """Does to a broker what happens to brokers."""

    def __init__(self, node: Node, before: Proxy, dice: Random) -> None:
        self.made: Counter[str] = Counter()
        self._node = node
        self._before = before
        self._dice = dice

    def make(self, count: int) -> None:
        """So many troubles, every kind of them where there are enough, with time to recover between."""
        kinds: list[Callable[[], None]] = [self._kill, self._pause, self._reset, self._lose_acknowledgements]
        for number in range(count):
            if number % len(kinds) == 0:
                self._dice.shuffle(kinds)
            threading.Event().wait(self._dice.uniform(0.5, 4))
            if count >= MANY and number == count // 2:
                self._pause(LONG_PAUSE_S)
            else:
                kinds[number % len(kinds)]()

    def _kill(self) -> None:
        self._node.kill()
        threading.Event().wait(self._dice.uniform(0, 4))
        self._node.start()
        self._node.wait()
        self.made["broker killed"] += 1

    def _pause(self, seconds: float | None = None) -> None:
        self._node.pause()
        threading.Event().wait(seconds or self._dice.uniform(1, 5))
        self._node.resume()
        self.made["broker paused" if seconds is None else f"broker paused for {seconds:.0f} s"] += 1

    def _reset(self) -> None:
        for _ in range(5):
            threading.Event().wait(self._dice.uniform(0, 0.4))
            self._before.reset_all()
        self.made["connections reset"] += 1

    def _lose_acknowledgements(self) -> None:
        before = self._before.lost_acknowledgements
        self._before.lose_acknowledgements(self._dice.randrange(1, 6))
        threading.Event().wait(3.0)
        self._before.lose_acknowledgements(0)
        if self._before.lost_acknowledgements > before:
            self.made["acknowledgements lost"] += 1


SCENARIOS: Final[dict[str, Callable[[Path, int, int], Outcome]]] = {
    "kafka": kafka,
    "broker": broker,
    "two_workers": two_workers,
    "rebalance": rebalance,
    "slow_store": slow_store,
}
"""By name: a folder, a seed, and how often."""
