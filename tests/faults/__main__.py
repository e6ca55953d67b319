"""The long runs of kills and restarts, and the repetition of one of them.

python -m tests.faults                              all of it: `make faults`; goes on where it was interrupted
python -m tests.faults --scenario kills --seed 7    one run again
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from tests.faults import kafka_scenarios, scenarios
from tests.faults.scenarios import Outcome, clear
from tools.kafka import broker

SCENARIOS = {**scenarios.SCENARIOS, **kafka_scenarios.SCENARIOS}
RUNS = {
    "kills": (20, 100),
    "restarts": (4, 50),
    "supervised": (4, 25),
    "kafka": (10, 60),
    "broker": (6, 20),
    "two_workers": (2, 20),
    "rebalance": (3, 8),
    "slow_store": (3, 6),
}
"""How many runs of each scenario, and how often in each: 2,000 kills, 200 restarts, 100 kills below a supervisor; 600
kills on the way through Kafka, 120 troubles of a broker, and some of each rarer mishap."""


def main() -> int:
    given = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    given.add_argument("--scenario", choices=list(SCENARIOS), help="only this one")
    given.add_argument("--seed", type=int, help="only this run of it")
    given.add_argument("--count", type=int, help="how many kills or restarts in a run")
    given.add_argument("--folder", type=Path, default=Path(".faults"), help="where runs and results are kept")
    chosen = given.parse_args()
    folder = chosen.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    done = _done(results) if chosen.seed is None else {}
    missing = broker.missing()
    if missing is not None:
        print(f"Without Kafka: {missing}", file=sys.stderr)
    for name, seed, count in _runs(chosen.scenario, chosen.seed, chosen.count):
        if (name, seed, count) in done or (missing is not None and name in kafka_scenarios.SCENARIOS):
            continue
        if not _run(name, seed, count, folder, results):
            return 1
    if chosen.seed is None:
        print(_figures(_done(results)))
    return 0


def _runs(scenario: str | None, seed: int | None, count: int | None) -> list[tuple[str, int, int]]:
    return [
        (name, number, count or often)
        for name, (runs, often) in RUNS.items()
        if scenario in (None, name)
        for number in ([seed] if seed is not None else range(1, runs + 1))
    ]


def _run(name: str, seed: int, count: int, folder: Path, results: Path) -> bool:
    path = folder / f"{name}-{seed}"
    clear(path)
    began = time.monotonic()
    repeat = f"python -m tests.faults --scenario {name} --seed {seed} --count {count}"
    try:
        outcome = SCENARIOS[name](path, seed, count)
    except BaseException:
        print(f"{name} {seed}: failed; again with: {repeat}", file=sys.stderr)
        raise
    seconds = time.monotonic() - began
    bad = not outcome.clean or (name == "restarts" and set(outcome.answers) != {"200"})
    print(
        f"{name} {seed}: {outcome.report.attempts} requests, {count} times, {seconds:.0f} s: {outcome.report.counts}",
        flush=True,
    )
    if bad:
        print(f"{outcome}\nThe data is in {path}. Again with: {repeat}", file=sys.stderr)
        return False
    with results.open("a") as lines:
        lines.write(json.dumps(_result(name, seed, count, seconds, outcome)) + "\n")
    clear(path)
    return True


def _result(name: str, seed: int, count: int, seconds: float, outcome: Outcome) -> dict[str, object]:
    report = outcome.report
    return {
        "scenario": name, "seed": seed, "count": count, "seconds": round(seconds), "requests": report.attempts,
        "acknowledged": report.acknowledged, "records": report.records, "calls": report.calls,
        "published": report.published,
        "kills": outcome.kills, "restarts": outcome.restarts, "at": outcome.at, "answers": outcome.answers,
        "slowest_s": round(outcome.slowest_s, 2), "switched_off": outcome.switched_off, **report.counts,
    }  # fmt: skip


def _done(results: Path) -> dict[tuple[str, int, int], dict[str, object]]:
    if not results.exists():
        return {}
    found = [json.loads(line) for line in results.read_text().splitlines()]
    return {(run["scenario"], run["seed"], run["count"]): run for run in found}


def _figures(done: dict[tuple[str, int, int], dict[str, object]]) -> str:
    """The table of docs/faults.md."""
    columns = ("requests", "acknowledged", "kills", "restarts", "lost", "double", "phantom", "forged", "silent")
    lines = [
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, DuckDB {version('duckdb')}, "
        f"{platform.system()} {platform.release().partition('-')[0]}",
        "",
        "| scenario | seeds | " + " | ".join(columns) + " | slowest answer | time |",
        "|---|---|" + "---|" * (len(columns) + 2),
    ]
    for name in SCENARIOS:
        runs = [run for (scenario, _, _), run in sorted(done.items()) if scenario == name]
        if not runs:
            continue
        seeds = [int(str(run["seed"])) for run in runs]
        sums = [sum(int(str(run[column])) for run in runs) for column in columns]
        slowest = max(float(str(run["slowest_s"])) for run in runs)
        minutes = sum(int(str(run["seconds"])) for run in runs) / 60
        numbers = " | ".join(f"{number:,}" for number in sums)
        lines.append(f"| {name} | {min(seeds)} to {max(seeds)} | {numbers} | {slowest:.1f} s | {minutes:.0f} min |")
    places: Counter[str] = Counter()
    for run in done.values():
        if isinstance(run["at"], dict):
            places.update({str(place): int(number) for place, number in run["at"].items()})
    named = {place: number for place, number in places.items() if place.startswith(("before ", "after "))}
    lines.append(f"\nKills at named points: {sum(named.values()):,}, at {len(named)} different ones.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
