"""Reads a delivery that has ended the worker's process in a process of its own, so that no other can end."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from calls.model import DeadLetter, Delivery


def is_readable(delivery: Delivery) -> bool:
    """Whether it is understood now, without an end of the process that reads it."""
    # A fresh interpreter: what a fork takes over of threads and memory could make it end by itself.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        try:
            return processes.submit(_understood, delivery).result()
        except (BrokenProcessPool, MemoryError):
            return False


def _understood(delivery: Delivery) -> bool:
    from streams.steps import interpret

    return not isinstance(interpret(delivery), DeadLetter)
