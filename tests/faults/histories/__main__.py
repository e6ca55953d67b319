"""The long run of histories, and the repetition of one.

python -m tests.faults.histories --count 20000      goes on where it was interrupted; ends with a line of figures
python -m tests.faults.histories --seed 17          one history again
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.faults.histories.piece import Piece, play

PIECE: Final = 40
"""So many seeds are run and noted at once."""
PIECES_A_PROCESS: Final = 25


def main() -> int:
    given = argparse.ArgumentParser(prog="python -m tests.faults.histories", description=(__doc__ or "").split("\n")[0])
    given.add_argument("--count", type=int, default=20_000, help="so many histories, from seed 0 on")
    given.add_argument("--seed", type=int, help="only this one")
    given.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    given.add_argument("--folder", type=Path, default=Path(".faults"), help="where it is noted what is done")
    chosen = given.parse_args()
    if chosen.seed is not None:
        piece = play(range(chosen.seed, chosen.seed + 1))
        print(piece.broken or dict(piece.given))
        return 1 if piece.broken else 0
    chosen.folder.mkdir(parents=True, exist_ok=True)
    results = chosen.folder / "histories.jsonl"
    done = _done(results)
    left = [range(at, min(at + PIECE, chosen.count)) for at in range(0, chosen.count, PIECE) if at not in done]
    with multiprocessing.get_context("spawn").Pool(chosen.processes, maxtasksperchild=PIECES_A_PROCESS) as pool:
        began = time.monotonic()
        for number, piece in enumerate(pool.imap_unordered(play, left), 1):
            with results.open("a") as lines:
                lines.write(json.dumps(piece._asdict()) + "\n")
            done[piece.first] = piece
            _say(piece, len(done) * PIECE, chosen.count, number * PIECE / (time.monotonic() - began))
    total = _total([piece for piece in done.values() if piece.first < chosen.count])
    print(json.dumps(total))
    return 1 if total["broken"] else 0


def _done(results: Path) -> dict[int, Piece]:
    """By its first seed what was run; what broke is run again."""
    if not results.exists():
        return {}
    found = [Piece(**json.loads(line)) for line in results.read_text().splitlines()]
    return {piece.first: piece._replace(given=Counter(piece.given)) for piece in found if not piece.broken}


def _say(piece: Piece, reached: int, count: int, rate: float) -> None:
    if piece.broken:
        print(f"{piece.broken}\nAgain with: python -m tests.faults.histories --seed N", flush=True)
    elif piece.first % (PIECE * 10) == 0:
        print(f"{min(reached, count):,} of {count:,} histories, {rate:.2f} a second", flush=True)


def _total(pieces: Sequence[Piece]) -> dict[str, object]:
    """The figures of docs/faults.md."""
    given: Counter[str] = Counter()
    for piece in pieces:
        given += piece.given
    return {
        **dict(sorted(given.items())),
        "broken": sum(bool(piece.broken) for piece in pieces),
        "cpu_s": round(sum(piece.cpu_s for piece in pieces)),
        "python": platform.python_version(),
        "duckdb": version("duckdb"),
    }


if __name__ == "__main__":
    sys.exit(main())
