"""The soak: steady traffic with repeats and forgeries for a long time, now and then a kill or a restart.

What is looked at is what grows: memory, file handles, the journal's and the store's write-ahead logs, the time of an
answer and the time until a webhook can be asked for. `python -m tests.faults.soak --minutes 60 --rate 500` is the long
form; it prints a line each minute, and at its end compares everything as the other scenarios do. With `--kafka`
everything goes through a broker that is killed every few minutes and comes back half a minute later.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Final, NamedTuple

import psutil

from tests.faults import scenarios
from tests.faults.cast import Folder, Up, ask
from tests.faults.driver import Driver
from tests.waiting import until
from tools.kafka import broker

PROCESSES: Final = ("ingest", "relay", "worker")
PROBES: Final = 20
"""How many webhooks are timed for a sample."""


@dataclass
class Sample:
    """One look at everything that could grow."""

    minute: float
    memory_mib: dict[str, int]
    handles: dict[str, int]
    mib: dict[str, float]
    """Of files: journal, its log, the store, its log."""
    answered: int
    behind_s: float
    """Median time from the moment the newest webhook was received until it is applied."""


class Outages(NamedTuple):
    """How often a broker is away, and how long, in seconds."""

    every_s: float
    away_s: float


@dataclass
class Soak:
    """What a soak gave."""

    outcome: scenarios.Outcome
    samples: list[Sample] = field(default_factory=list)
    outages: int = 0

    def grown(self) -> list[str]:
        """What is more at the end than at the first look, a line each: then, halfway, and at the end."""
        if not self.samples:
            return []
        looks = [
            _measured(sample) for sample in (self.samples[0], self.samples[len(self.samples) // 2], self.samples[-1])
        ]
        first, halfway, last = looks
        return [
            f"{name}: {first[name]:g}, {halfway[name]:g}, {last[name]:g}" for name in first if last[name] > first[name]
        ]


def _measured(sample: Sample) -> dict[str, float]:
    found: dict[str, float] = {f"memory of {name}, MiB": size for name, size in sample.memory_mib.items()}
    found |= {f"open handles of {name}": count for name, count in sample.handles.items()}
    found |= {f"{name.replace('_', ' ')}, MiB": size for name, size in sample.mib.items()}
    return found | {"received to applied, s": sample.behind_s}


def soak(
    path: Path,
    *,
    seed: int,
    seconds: float,
    rate: float,
    look_s: float,
    looks: int,
    outages: Outages | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Soak:
    """Run it, looking every `look_s` seconds; after so many looks a process is killed or all begin anew.

    With `outages` it goes through Kafka, whose broker has them.
    """
    dice, samples, pause = Random(seed), list[Sample](), threading.Event()
    kills = restarts = 0
    with ExitStack() as stack:
        bootstrap = ""
        brokers: _Brokers | None = None
        if outages is not None:
            made = stack.enter_context(broker.cluster(path / "kafka"))
            bootstrap, brokers = made.bootstrap, _Brokers(made.nodes[0], outages)
            stack.callback(brokers.end)
        folder = Folder(path, kafka=bootstrap)
        driver = Driver(folder.ports["ingest"], folder.ledger, seed, per_s=rate, steady=True)
        up = stack.enter_context(Up(folder, *(["--kafka"] if bootstrap else [])))
        processes = [name for name in PROCESSES if bootstrap or name != "relay"]
        up.await_ready()
        driver.start()
        began = time.monotonic()
        try:
            while (passed := time.monotonic() - began) < seconds:
                pause.wait(min(look_s, seconds - passed))
                samples.append(_seen(folder, up, processes, driver, began))
                say(json.dumps(asdict(samples[-1])))
                if len(samples) % looks:
                    continue
                if dice.random() < 0.5:
                    up.kill(dice.choice(processes))
                    kills += 1
                else:
                    up.renew()
                    restarts += 1
                up.await_ready()
        finally:
            driver.stop()
            if brokers is not None:
                brokers.stay()
        outcome = scenarios.compare(folder, driver, [], up=up, kafka=bootstrap)
        outcome.kills, outcome.restarts = kills, restarts
    return Soak(outcome, samples, 0 if brokers is None else brokers.count)


class _Brokers:
    """A broker that is killed now and then, until it is to stay."""

    def __init__(self, node: broker.Node, outages: Outages) -> None:
        self.count = 0
        self._node = node
        self._outages = outages
        self._failure: BaseException | None = None
        self._staying, self._there, self._over = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="outages")
        self._thread.start()

    def stay(self) -> None:
        """Return once it is there until `end`. Raises what kept it from coming back."""
        self._staying.set()
        self._there.wait()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        self._staying.set()
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._come_and_go()
        except BaseException as error:
            self._failure = error
        self._there.set()
        # A broker is killed when the thread that started it ends.
        self._over.wait()

    def _come_and_go(self) -> None:
        while not self._staying.wait(self._outages.every_s):
            self._node.kill()
            self._staying.wait(self._outages.away_s)
            self._node.start()
            self._node.wait()
            self.count += 1


def _seen(folder: Folder, up: Up, processes: list[str], driver: Driver, began: float) -> Sample:
    """A look, once all processes are there: the supervisor may be starting one again just now."""
    found: list[Sample] = []
    missed: list[Exception] = []

    def look() -> bool:
        try:
            found.append(_look(folder, up, processes, driver, time.monotonic() - began))
        except (OSError, psutil.Error, StopIteration) as error:
            missed.append(error)
        return bool(found)

    until(look, lambda: f"all processes can be looked at: {missed[-1]!r} {up.said()[-3000:]}")
    return found[0]


def _look(folder: Folder, up: Up, processes: list[str], driver: Driver, seconds: float) -> Sample:
    data = folder.journal.parent
    files = {"journal": folder.journal, "journal_log": data / "journal.sqlite-wal"}
    files |= {"store": data / "store.duckdb", "store_log": data / "store.duckdb.wal"}
    living = {name: psutil.Process(up.pid_of(name)) for name in processes}
    return Sample(
        minute=round(seconds / 60, 1),
        memory_mib={name: process.memory_info().rss >> 20 for name, process in living.items()},
        handles={name: process.num_fds() for name, process in living.items()},
        mib={name: round(file.stat().st_size / 2**20, 1) if file.exists() else 0.0 for name, file in files.items()},
        answered=driver.statuses["200"],
        behind_s=round(median(_behind_s(folder) for _ in range(PROBES)), 3),
    )


def _behind_s(folder: Folder) -> float:
    """How old the newest applied webhook was when it was applied, in seconds."""
    newest = "SELECT epoch(applied_at - received_at) AS s FROM deliveries ORDER BY position DESC LIMIT 1"
    return float(str(ask(folder, newest)[0]["s"]))


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=500, help="webhooks a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kafka", action="store_true", help="through a broker that comes and goes")
    given = parser.parse_args()
    seconds = given.minutes * 60
    part = seconds / 12  # so that a short run has some of everything, too
    with tempfile.TemporaryDirectory() as folder:
        found = soak(
            Path(folder), seed=given.seed, seconds=seconds, rate=given.rate, look_s=min(60.0, part), looks=5,
            outages=Outages(every_s=min(240.0, 3 * part), away_s=min(30.0, part)) if given.kafka else None,
            say=lambda line: print(line, flush=True),
        )  # fmt: skip
    outcome = found.outcome
    print(
        f"{outcome}\nkills {outcome.kills}, restarts {outcome.restarts}, outages of the broker {found.outages}, "
        f"slowest answer {outcome.slowest_s:.2f} s, requests {outcome.report.attempts}, "
        f"acknowledged {outcome.report.acknowledged}"
    )
    print("\n".join(["grown, from the first look to half the time and to the end:", *found.grown()]))
    sys.exit(0 if outcome.clean else 1)


if __name__ == "__main__":
    main()
