"""Why a delivery becomes a dead letter, where that is no sender's doing; what senders do wrong has its reason there."""

from __future__ import annotations

from typing import Final

NORMALISER_FAILED: Final = "normaliser_failed"
"""A bug: the normaliser raised what it must not raise, or gave what no row can be made of."""
NOT_STORABLE: Final = "not_storable"
"""A bug that shows only in the store, which cannot take the events."""
CRASHED_WORKER: Final = "crashed_worker"
"""A bug that ended the worker's process whenever the delivery was applied."""
PROVIDER_UNKNOWN: Final = "provider_unknown"
"""The provider has no module any more."""
JOURNAL_DAMAGED: Final = "journal_damaged"
"""A row of the journal fails its digest."""
RECORD_MALFORMED: Final = "record_malformed"
"""What stands in Kafka's topic was not written by a relay, or was changed since."""

MISTAKES: Final = frozenset({NORMALISER_FAILED, NOT_STORABLE, CRASHED_WORKER, PROVIDER_UNKNOWN})
"""Calltally's own: with the code mended, `calltally dead retry` makes them count."""
OUR_FAULT: Final = MISTAKES | {JOURNAL_DAMAGED, RECORD_MALFORMED}
"""Each such dead letter is logged as an error."""
