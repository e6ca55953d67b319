"""What Kafka's client raises, as the worker understands it."""

from __future__ import annotations

import pytest
from aiokafka import errors

from calls.errors import BrokerError
from streams.fetches import explain

KINDS = sorted(
    {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.KafkaError)}
    - {errors.BrokerResponseError},  # what the rest of them is made of
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_whatever_the_client_raises_is_tried_again_and_told(kind: type[Exception]) -> None:
    """None of its errors ends the worker: each becomes one of ours, with a sentence."""
    error = explain(kind.__new__(kind))

    assert isinstance(error, BrokerError)
    assert kind.__name__ in error.message or error.code == "offsets_gone"


def test_what_is_no_error_of_the_clients_is_told_too() -> None:
    """As where it stops without saying why."""
    assert "it stopped by itself" in explain(RuntimeError("it stopped by itself")).message
