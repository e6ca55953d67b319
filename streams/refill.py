"""Making a store again that Kafka fills: it is moved aside, and the next worker fills a new one from the beginning."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analytics.store import Store
from calls.crashes import Crashes
from calls.errors import StoreDamaged, StoreMismatch
from streams import broker
from streams.announce import APPLIED
from streams.offsets import require_beginning
from streams.rebuild import set_aside

if TYPE_CHECKING:
    from calls.settings import Settings

GROUP_FILE: Final = "kafka-group"
"""In the data folder of a worker that reads from Kafka: what its consumer group is named after."""


def is_filled_from_kafka(settings: Settings) -> bool:
    """Whether the store's positions are Kafka's; of one that cannot be read, whether its worker last read Kafka.

    Raises StoreLocked where a worker runs, StoreUnavailable.
    """
    if not settings.store_path.exists():
        return False
    try:
        store = Store.open(settings.store_path, rules=settings.rules)
    except (StoreDamaged, StoreMismatch):
        return (settings.data_dir / GROUP_FILE).exists()
    try:
        return any(stream == APPLIED for stream, _ in store.positions())
    finally:
        store.close()


def begin_anew(settings: Settings, *, forgiven: Collection[str] = ()) -> Path:
    """Move the store aside; where it is now. `forgiven` are ids of deliveries that ended a worker and are read again.

    Raises BrokerError where Kafka cannot be asked, StoreMismatch where its topics lack the beginning: then nothing was
    moved.
    """
    why = StoreMismatch("The store is to be made again.")
    require_beginning(broker.look(settings), why)
    Crashes(settings.store_path).forgive(forgiven)
    return set_aside(settings.store_path, why)
