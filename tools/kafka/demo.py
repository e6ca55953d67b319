"""`make demo-kafka`: the demo through a real Kafka; a broker of its own beside it, unless the environment names one.

What is not known here is passed on to `calltally up`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.kafka import broker

BROKERS = "CALLTALLY_KAFKA_BOOTSTRAP_SERVERS"
FOLDER = Path("demo-kafka-data")


def main() -> int:
    """Run until Ctrl-C; the exit code of `calltally up`, 1 where there can be no broker."""
    parser = argparse.ArgumentParser(prog="make demo-kafka", description=__doc__)
    parser.add_argument("--demo-dir", type=Path, default=FOLDER, help="where the demo and its broker keep their data")
    mine, others = parser.parse_known_args()
    try:
        with _brokers(mine.demo_dir) as environment:
            return _up(mine.demo_dir, others, environment)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (broker.KafkaMissing, broker.KafkaFailed) as error:
        _say(f"{error}\nOr name a Kafka that runs already: {BROKERS}=host:port make demo-kafka")
        return 1


@contextlib.contextmanager
def _brokers(folder: Path) -> Iterator[dict[str, str]]:
    """A Kafka that runs, as the environment that names it."""
    named = os.environ.get(BROKERS)
    if named:
        _say(f"the Kafka at {named} is used ({BROKERS})")
        yield {**os.environ}
        return
    broker.libraries(_say)
    # What is said about other brokers (TLS, a login) does not hold for ours.
    others = {name: value for name, value in os.environ.items() if not name.startswith("CALLTALLY_KAFKA_")}
    with broker.lasting(folder / "kafka") as node:
        _say(f"Kafka runs at {node.bootstrap}, with its records and its log in {node.folder}")
        yield {**others, BROKERS: node.bootstrap}


def _up(folder: Path, others: list[str], environment: dict[str, str]) -> int:
    # Ctrl-C reaches every process of the terminal. `calltally up` stops its own in order; the broker is stopped last.
    signal.signal(signal.SIGINT, lambda *_: None)
    command = [sys.executable, "-m", "cli.main", "up", "--demo", "--kafka", "--demo-dir", str(folder), *others]
    process = subprocess.Popen([*broker.dies_with_us("TERM"), *command], env=environment)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


def _say(sentence: str) -> None:
    print(f"demo-kafka: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
