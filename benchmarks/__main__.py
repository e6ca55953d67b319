"""Runs every benchmark of this folder, one after the other: `make bench`."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = (
    ("journal",),
    ("ingest",),
    ("ingest", "--journalled", "1000000", "--rounds", "2"),
    ("stream", "--stored", "5000000"),
    ("running",),
    ("page",),
    ("relay",),
    ("ingest_kafka",),
    ("faust_worker",),
    ("chain", "--seconds", "60", "--kills", "5"),
    ("chain", "--backlog", "500000"),
)


def main() -> None:
    for words in COMMANDS:
        print(f"\n== {' '.join(words)}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]], check=True)


if __name__ == "__main__":
    main()
