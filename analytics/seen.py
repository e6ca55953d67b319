"""Keys that the store may hold, in memory: "never seen" is certain and costs no look-up, "maybe" asks the tables.

Memory: 3 bytes a key at the rate of false answers below, and up to twice that while the newest layer fills, so 60 to
120 MB for five million calls and their deliveries together. The locations of recent keys add at most 60 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rbloom import Bloom

from calls.model import Micros

FALSE_MAYBE: Final = 1e-5
"""Share of never-seen keys that cost a needless look-up."""
FIRST_LAYER_KEYS: Final = 1_000_000
LOCATED_KEYS: Final = 200_000


class Seen:
    """64-bit keys that may be there. Filled layers are kept and a new one of twice the size is put beside them."""

    def __init__(self, expected: int = 0) -> None:
        self._layers: list[Bloom] = []
        self._room = 0
        self._capacity = max(FIRST_LAYER_KEYS, 2 * expected) // 2
        self._grow()

    def add(self, keys: Sequence[int]) -> None:
        """Remember keys; costs about a tenth of a microsecond each."""
        if len(keys) > self._room:
            self._grow(len(keys))
        self._layers[-1].update(keys)
        self._room -= len(keys)

    def maybe(self, keys: Iterable[int]) -> list[int]:
        """Those of the keys that may be there, each once."""
        layers = self._layers
        return [key for key in dict.fromkeys(keys) if any(key in layer for layer in layers)]

    @property
    def bytes(self) -> int:
        """Memory that the layers take."""
        return sum(layer.size_in_bits for layer in self._layers) // 8

    def _grow(self, keys: int = 0) -> None:
        self._capacity = max(2 * self._capacity, keys)
        self._layers.append(Bloom(self._capacity, FALSE_MAYBE))
        self._room = self._capacity


class Located:
    """When recently touched calls were first received, so that a look-up can leave out all other times.

    Two generations, the older of which is dropped when the younger is full: bounded, without a list of uses.
    """

    def __init__(self) -> None:
        self._young: dict[int, Micros] = {}
        self._old: dict[int, Micros] = {}

    def put(self, key: int, first_received_at: Micros) -> None:
        if len(self._young) >= LOCATED_KEYS // 2:
            self._old, self._young = self._young, {}
        self._young[key] = first_received_at

    def get(self, key: int) -> Micros | None:
        found = self._young.get(key)
        return self._old.get(key) if found is None else found
