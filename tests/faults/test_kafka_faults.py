"""What happens on the way through Kafka, under load and with a real broker: the short form of `make faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import planted
from tests.faults.kafka_scenarios import MANY, SCENARIOS, fault

pytestmark = pytest.mark.kafka

SHORT = {"kafka": 6, "broker": 4, "two_workers": 1, "rebalance": 1, "slow_store": 1}
"""How often, in each."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_or_doubled_on_the_way_through_kafka(kafka: None, tmp_path: Path, name: str) -> None:
    """Ledger, journal, topics and store agree afterwards, whatever was killed, cut off, slow or there twice."""
    outcome = SCENARIOS[name](tmp_path / "run", 1, SHORT[name])

    assert outcome.clean, f"python -m tests.faults --scenario {name} --seed 1 --count {SHORT[name]}\n{outcome}"
    assert outcome.report.acknowledged > 0
    assert outcome.report.published > outcome.report.records


@pytest.mark.parametrize("name", planted.KAFKA_FAULTS)
def test_a_planted_fault_is_found_in_the_topics_or_behind_them(kafka: None, tmp_path: Path, name: str) -> None:
    """The harness's own proof: the report names it under the number it belongs to."""
    outcome = fault(tmp_path / "run", 5, name)

    assert outcome.report.counts[planted.KAFKA_FAULTS[name].found_as] > 0, str(outcome)


def test_a_short_run_waits_for_no_long_pause() -> None:
    """The half minute without a broker belongs to the long form."""
    assert max(SHORT.values()) < MANY
