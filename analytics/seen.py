"""Keys that the store may hold, in memory: "never seen" is certain and costs no look-up, "maybe" asks the tables.

Memory: 8 bytes for a key that was there at opening, 3 to 6 for one that came since, so 80 MB for five million calls and
their deliveries together. What is remembered of recent ones adds at most 80 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from rbloom import Bloom

from calls.model import Micros, StreamPoint

FALSE_MAYBE: Final = 1e-5
"""Share of never-seen keys that cost a needless look-up."""
FIRST_LAYER_KEYS: Final = 1_000_000
LOCATED_KEYS: Final = 200_000
STANDING_KEYS: Final = 50_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class Seen:
    """64-bit keys that may be there: those known at opening, exactly, and those added since, nearly so.

    The former are a sorted array, which takes a tenth of the time of filling a filter. The latter are filters: filled
    ones are kept, and a new one of twice the size is put beside them.
    """

    def __init__(self, known: NDArray[np.int64]) -> None:
        self._known = np.sort(known)
        self._layers: list[Bloom] = []
        self._capacity = FIRST_LAYER_KEYS // 2
        self._room = 0

    def add(self, keys: Sequence[int]) -> None:
        """Remember keys; costs about half a microsecond each."""
        if not keys:
            return
        if len(keys) > self._room:
            self._room = self._capacity = max(2 * self._capacity, len(keys))
            self._layers.append(Bloom(self._capacity, FALSE_MAYBE))
        self._layers[-1].update(keys)
        self._room -= len(keys)

    def maybe(self, keys: Iterable[int]) -> list[int]:
        """Those of the keys that may be there, each once; nearly nothing where none ever was."""
        if not (self._layers or self._known.size):
            return []
        distinct = list(dict.fromkeys(keys))
        layers = self._layers
        return [
            key
            for key, known in zip(distinct, self._is_known(distinct), strict=True)
            if known or any(key in layer for layer in layers)
        ]

    @property
    def bytes(self) -> int:
        """Memory that the keys take."""
        return self._known.nbytes + sum(layer.size_in_bits for layer in self._layers) // 8

    def _is_known(self, keys: Sequence[int]) -> list[bool]:
        if not self._known.size:
            return [False] * len(keys)
        asked = np.array(keys, dtype=np.int64)
        places = np.searchsorted(self._known, asked)
        places[places == self._known.size] = 0
        found: list[bool] = (self._known[places] == asked).tolist()
        return found


class Recent(Generic[Key, Value]):
    """What was put last, by key.

    Two generations, the older of which is dropped when the younger is full: bounded, without a list of uses.
    """

    def __init__(self, keys_max: int) -> None:
        self._half = keys_max // 2
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def put(self, key: Key, value: Value) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def get(self, key: Key) -> Value | None:
        found = self._young.get(key)
        return self._old.get(key) if found is None else found


class Located(Recent[int, Micros]):
    """When recently touched calls were first received, so that a look-up can leave out all other times."""

    def __init__(self) -> None:
        super().__init__(LOCATED_KEYS)


class Standing(Recent[str, StreamPoint]):
    """Where recently applied deliveries stand, so that a repeat that comes soon needs no look-up."""

    def __init__(self) -> None:
        super().__init__(STANDING_KEYS)
