"""A delivery that ends the processes it passes through on its way through Kafka."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from calls.crashes import DEATHS_MAX, Crashes
from calls.records import Topic
from tests.faults.length import LONG
from tests.kafka.reading import everything
from tests.kafka.relaying import writing
from tests.kafka.workers import data_folder
from tests.test_crashes import ENDS, calltally, contents, count, log, platform, query, webhook
from tests.waiting import until
from tools.kafka import broker

__all__ = ["platform"]

COUNT = 120
POISON = 61

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not LONG, reason="Fifteen starts of a relay and a worker take a minute: `make faults` has it."),
]


def test_relay_and_worker_live_on_without_it(kafka: None, tmp_path: Path, platform: Path) -> None:
    """Each finds it out for itself; all else is published, applied and published again, the one as a dead letter."""
    sent = [webhook(number, "segfault" if number == POISON else "go on") for number in range(1, COUNT + 1)]
    with broker.cluster(tmp_path / "kafka") as cluster:
        ours = data_folder(tmp_path / "here", cluster.bootstrap)
        with writing(tmp_path / "here") as journal:
            journal.append(sent)

        def published() -> bool:
            with suppress(ValueError):  # the relay has not made the topic yet
                return len(everything(cluster.bootstrap)) >= COUNT
            return False

        def applied() -> bool:
            return count(tmp_path / "here") == COUNT

        def told() -> bool:
            return len(everything(cluster.bootstrap, Topic.DEAD)) == 1

        ends = 0
        for words, done in ((["relay"], published), (["worker", "--kafka"], lambda: applied() and told())):
            ends = 0
            while True:
                with calltally(tmp_path / "here", platform, *words) as process:
                    until(lambda: _ended(process) or done(), lambda: log(tmp_path / "here")[-3000:], seconds=60)  # noqa: B023
                    if not _ended(process):
                        if words[0] == "worker":
                            dead = query(tmp_path / "here", "SELECT position, reason FROM dead_letters")
                            assert dead == [(POISON, "crashed_worker")]
                        process.send_signal(signal.SIGTERM)
                        assert process.wait(30) == 0
                        break
                    assert process.returncode == -signal.SIGSEGV, log(tmp_path / "here")
                    ends += 1
                    assert ends < 10, log(tmp_path / "here")
            assert ends == {"relay": 1 + DEATHS_MAX, "worker": ENDS}[words[0]]
    assert list(Crashes(ours.store_path).deadly) == [sent[POISON - 1].id]
    assert list(Crashes(ours.data_dir / "relay").deadly) == [sent[POISON - 1].id]
    assert contents(tmp_path / "here", "SELECT count(*) FROM calls") == [(COUNT - 1,)]


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None
