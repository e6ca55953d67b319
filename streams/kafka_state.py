"""How a worker that reads from Kafka is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.partition import Slot
from streams.worker_state import WorkerState


@dataclass
class KafkaState(WorkerState):
    """Like the embedded worker's, where `position` is the sum of the applied offsets of all partitions."""

    partitions: Mapping[Slot, int] = field(default_factory=dict)
    """Records of each (topic, partition) that are not applied yet; replaced as a whole."""

    @property
    def lag(self) -> int:
        """How many records of Kafka are not yet applied."""
        return sum(self.partitions.values())
