"""What is done to Calltally under load: each scenario is one run in a folder of its own, repeated by its seed."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from kafka.errors import KafkaError

from calls import relay_report
from tests.faults import cast, checker, planted, topics
from tests.faults.cast import Actor, Folder, Up
from tests.faults.driver import Driver
from tests.faults.points import POINTS, Point
from tests.faults.report import Alarm, Report, alarms_in
from tests.waiting import comes_true, until

INSTANT_S = 0.5
"""A random instant is within this long after a process is ready, or after its start."""
APPLIED_S = 150.0
"""How long the end of a run is waited for: all applied, and published."""
POINT_S = 4.0
"""A point that is not reached within this long is not waited for: the process dies at whatever it does then."""


@dataclass
class Outcome:
    """What a run gave."""

    report: Report
    verify: tuple[int, str]
    """Exit code and words of `calltally verify`."""
    kills: int = 0
    restarts: int = 0
    at: Counter[str] = field(default_factory=Counter)
    """Where processes died."""
    answers: Counter[str] = field(default_factory=Counter)
    """What genuine webhooks got."""
    slowest_s: float = 0.0
    switched_off: int = 0
    alarms: list[Alarm] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return self.report.clean and self.verify[0] == 0

    def __str__(self) -> str:
        said = [str(self.report)]
        if self.verify[0]:
            said.append(f"calltally verify: {self.verify[1]}")
        said.append(f"answers {dict(self.answers)}, died {dict(self.at)}")
        return "\n".join([*said, *map(str, self.alarms[:5])])


def kills(path: Path, seed: int, count: int) -> Outcome:
    """SIGKILL of ingest and worker, at random instants and at named points, `count` times in all."""
    folder = Folder(path)
    driver = Driver(folder.ports["ingest"], folder.ledger, seed)
    # As under a supervisor, who keeps the socket; or as without one, where senders are refused meanwhile.
    listener = folder.listen() if Random(seed).random() < 0.7 else None
    actors = [Actor(folder, "ingest", listener=listener), Actor(folder, "worker")]
    reapers = [Reaper(actor, Random(f"{seed} {actor.name}")) for actor in actors]
    driver.start()
    try:
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(reaper.run, count // len(actors)) for reaper in reapers]:
                done.result()
        for actor in actors:
            actor.start()
            actor.await_ready()
        time.sleep(0.3)
    finally:
        driver.stop()
        if listener is not None:
            listener.close()
    outcome = compare(folder, driver, actors)
    outcome.kills = sum(reaper.at.total() for reaper in reapers)
    outcome.at = sum((reaper.at for reaper in reapers), Counter())
    return outcome


def one_point(path: Path, seed: int, point: Point, *, deaths: int = 2) -> Outcome:
    """The process dies at one named point, some times in a row, then goes on."""
    folder = Folder(path)
    driver = Driver(folder.ports["ingest"], folder.ledger, seed)
    actors = [Actor(folder, "ingest"), Actor(folder, "worker")]
    dice = Random(seed)
    at: Counter[str] = Counter()
    driver.start()
    try:
        for actor in actors:
            actor.start() if actor.title != point.process else None
        victim = next(actor for actor in actors if actor.title == point.process)
        for _ in range(deaths):
            victim.start(point, dice.randrange(1, 4))
            at[point.name if victim.dies_within(20) else "never"] += 1
            victim.kill()
        victim.start()
        for actor in actors:
            actor.await_ready()
    finally:
        driver.stop()
    outcome = compare(folder, driver, actors)
    outcome.kills, outcome.at = deaths, at
    return outcome


def restarts(path: Path, seed: int, count: int) -> Outcome:
    """`calltally up` under load, told to begin anew `count` times: every sender gets its 200."""
    folder = Folder(path)
    driver = Driver(folder.ports["ingest"], folder.ledger, seed, per_s=100.0, steady=True)
    with Up(folder) as up:
        up.await_ready()
        driver.start()
        try:
            for _ in range(count):
                up.renew()
        finally:
            driver.stop()
        outcome = compare(folder, driver, [], up=up)
        outcome.restarts = count
    return outcome


def supervised(path: Path, seed: int, count: int) -> Outcome:
    """SIGKILL of `calltally up` and of what it started, under load; a killed `up` is started again, as by systemd."""
    folder = Folder(path)
    driver = Driver(folder.ports["ingest"], folder.ledger, seed, per_s=50.0, steady=True)
    dice = Random(seed)
    at: Counter[str] = Counter()
    with Up(folder) as up:
        up.await_ready()
        driver.start()
        try:
            for _ in range(count):
                victim = dice.choice(["ingest", "ingest", "worker", "worker", "up"])
                threading.Event().wait(dice.uniform(0, INSTANT_S))
                up.kill(victim)
                at[victim] += 1
                if dice.random() < 0.7:
                    up.await_ready()
            up.await_ready()
        finally:
            driver.stop()
        outcome = compare(folder, driver, [], up=up)
        outcome.kills, outcome.at = count, at
    return outcome


def fault(path: Path, seed: int, name: str) -> Outcome:
    """One of `planted.ALL`, with the deaths that bring it out."""
    folder = Folder(path)
    mistake = planted.ALL[name]
    driver = Driver(folder.ports["ingest"], folder.ledger, seed, steady=True, only=mistake.only)
    actors = [
        Actor(folder, process, fault=name if mistake.process == process else None) for process in ("ingest", "worker")
    ]
    driver.start()
    try:
        for _ in range(3):
            for actor in actors:
                actor.kill() if actor.alive else None
            for actor in actors:
                actor.start()
                actor.await_ready()
            time.sleep(0.7)
    finally:
        driver.stop()
    return compare(folder, driver, actors)


def compare(folder: Folder, driver: Driver, actors: list[Actor], *, up: Up | None = None, kafka: str = "") -> Outcome:
    """Let the door close, wait until all is applied, and hold everything against everything.

    `kafka` is where the topics are, in case the store is filled from them; then all of it must be published, too.
    """
    for actor in actors:
        if actor.name == "ingest":
            actor.stop()
    if up is not None:
        # An ingest that goes on tells up to ten seconds late how much it refused; one that ends tells it at once.
        up.renew()
    until(lambda: _applied(folder, kafka), "everything is applied", APPLIED_S)
    code, said = cast.command(folder, "snapshot", "-o", str(folder.snapshot))
    assert code == 0, said
    verify = cast.command(folder, "verify")
    for actor in actors:
        actor.stop()
    alarms = alarms_in(folder.log_lines())
    found = checker.check(folder.ledger, folder.journal, folder.snapshot, alarms, kafka=kafka)
    return Outcome(
        found, verify, answers=driver.statuses, slowest_s=driver.slowest_s, switched_off=driver.switched_off,
        alarms=alarms,
    )  # fmt: skip


def _journal_end(folder: Folder) -> int:
    with closing(sqlite3.connect(f"file:{folder.journal}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT coalesce(max(position), 0) FROM rows").fetchone()[0])


def _applied(folder: Folder, kafka: str) -> bool:
    """Whether those under test say that all is applied; whether it is so is compared then."""
    end = _journal_end(folder)
    try:
        rows = cast.ask(folder, "SELECT stream, stream_id, position FROM positions")
    except OSError:
        return False
    reached: dict[str, dict[object, int]] = {"journal": {}, "kafka": {}, "announced": {}}
    for row in rows:
        reached[str(row["stream"])][row["stream_id"]] = int(str(row["position"]))
    if not kafka:
        return max(reached["journal"].values(), default=0) >= end
    relayed = relay_report.read(folder.journal.parent)
    try:
        published = topics.length(kafka)
    except KafkaError:  # the broker may have come back just now
        return False
    if relayed is None or relayed.position < end or sum(reached["kafka"].values()) < published:
        return False
    return all(reached["announced"].get(name, 0) >= position for name, position in reached["kafka"].items())


class Reaper:
    """Kills one process again and again, each life ending in a way drawn from the dice."""

    def __init__(
        self,
        actor: Actor,
        dice: Random,
        *,
        point_s: float = POINT_S,
        instant_s: float = INSTANT_S,
        patience_s: float | None = None,
    ) -> None:
        """`instant_s` bounds a random instant, `patience_s` how long is waited before it for the process to be ready.

        Without `patience_s` a process that does not become ready is a failure.
        """
        self.at: Counter[str] = Counter()
        self._actor = actor
        self._dice = dice
        self._point_s = point_s
        self._instant_s = instant_s
        self._patience_s = patience_s
        self._points = [point for point in POINTS if point.process == actor.title]

    def run(self, count: int) -> None:
        """So many lives."""
        for _ in range(count):
            self._live()

    def run_until(self, enough: threading.Event) -> None:
        """One life after the other, until told that it is enough."""
        while not enough.is_set():
            self._live()

    def _live(self) -> None:
        if self._points and self._dice.random() < 0.6:
            self._until_a_point(self._dice.choice(self._points))
        else:
            self._until_an_instant()

    def _until_a_point(self, point: Point) -> None:
        self._actor.start(point, self._dice.choice([1, 1, 2, 3, 5, 9]))
        reached = self._actor.dies_within(self._point_s)
        self._end(point.name if reached else f"some instant, since {point.name} was not reached")

    def _until_an_instant(self) -> None:
        actor = self._actor
        actor.start()
        if self._dice.random() < 0.8:
            ready = comes_true(lambda: actor.ready() or not actor.alive, self._patience_s or cast.DEADLINE_S)
            assert ready or self._patience_s, f"{actor.title} does not become ready"
        threading.Event().wait(self._dice.uniform(0, self._instant_s))
        self._end("some instant")

    def _end(self, where: str) -> None:
        code = self._actor.kill()
        assert code == -9, f"{self._actor.name} ended with {code} instead of being killed"
        self.at[where] += 1


def clear(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


SCENARIOS: Final[dict[str, Callable[[Path, int, int], Outcome]]] = {
    "kills": kills,
    "supervised": supervised,
    "restarts": restarts,
}
"""By name: a folder, a seed, and how often."""
