"""What goes wrong below the product: statements that fail, commits that lie, a process that dies, code with bugs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Final

import duckdb
import structlog

from analytics import store as store_module
from analytics.store import Store
from calls.model import CallEvent, Delivery
from calls.provider import Provider, discover
from streams import steps

POISON: Final = b"poison-raises"
UNSTORABLE: Final = b"poison-unstorable"
POISONED_HEADER: Final = "x-poison"
"""With it, a delivery cannot be read that can be without: equal bodies may differ in that."""
IN_STATEMENTS: Final = frozenset({"statement fails", "killed in a statement"})
AT_COMMITS: Final = frozenset(
    {"commit fails", "commit fails but happened", "killed before a commit", "killed after a commit"}
)


class Killed(BaseException):
    """Stands for the death of the process: nothing catches it and nothing is tidied up."""


@dataclass
class Fault:
    """Something that goes wrong in one statement of the store's writer, from the `after`-th on."""

    kind: str
    after: int
    given: bool = False

    @classmethod
    def drawn(cls, kind: str, dice: Random) -> Fault:
        """Soon enough that it often comes in a short history."""
        return cls(kind, dice.randint(1, 20 if kind in IN_STATEMENTS else 3))

    def break_into(self, store: Store) -> None:
        store._writer = _Breaking(store._writer, self)  # type: ignore[assignment]

    def mend(self, store: Store) -> None:
        writer: object = store._writer
        if isinstance(writer, _Breaking):
            store._writer = writer.real

    def execute(self, run: Callable[[], object], text: str) -> object:
        if self.given or (self.kind not in IN_STATEMENTS and text != "COMMIT"):
            return run()
        self.after -= 1
        if self.after > 0:
            return run()
        self.given = True
        match self.kind:
            case "statement fails" | "commit fails":
                raise duckdb.IOException("IO Error: made to fail")
            case "commit fails but happened":
                run()
                raise duckdb.IOException("IO Error: made to fail after all was written")
            case "killed after a commit":
                run()
                raise Killed
            case _:
                raise Killed


class _Breaking:
    """A writer's connection with a fault in it."""

    def __init__(self, real: duckdb.DuckDBPyConnection, fault: Fault) -> None:
        self.real = real
        self._fault = fault

    def execute(self, text: str, *parameters: object) -> object:
        return self._fault.execute(lambda: self.real.execute(text, *parameters), text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


@contextlib.contextmanager
def poisonous_providers() -> Iterator[None]:
    """Every normaliser has bugs that show on poison: it raises, or gives what no column takes."""
    poisonous = MappingProxyType({name: _with_bugs(provider) for name, provider in discover().items()})
    with put(steps, discover=lambda: poisonous):
        yield


def _with_bugs(provider: Provider) -> Provider:
    right = provider.normalise

    def normalise(delivery: Delivery) -> list[CallEvent]:
        if POISON in delivery.body or POISONED_HEADER in delivery.headers:
            raise ZeroDivisionError("a bug")
        if UNSTORABLE in delivery.body:
            return [CallEvent(event="poison", call_id="c9", org="", happened_at=2**70)]
        return right(delivery)

    return replace(provider, normalise=normalise)


@contextlib.contextmanager
def small_limits(dice: Random) -> Iterator[None]:
    """Roll-ups are settled and the log is copied within a short history, in some sooner than in others."""
    rows, wal = dice.choice([(25, 100_000), (60, 30_000), (400, 1 << 20), (20_000, 4 << 20)])
    with put(store_module, SETTLE_ROWS=rows, CHECKPOINT_WAL_BYTES=wal):
        yield


@contextlib.contextmanager
def put(module: object, **values: object) -> Iterator[None]:
    """These names of a module have other values within."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The product logs every fault as it should; thousands of them tell nothing."""
    before = structlog.get_config()
    only_critical = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=only_critical, cache_logger_on_first_use=False)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**before)
