"""Many questions in a row: to the worker, or to the store's file opened once, where each would open it anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from calls.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from analytics.query import Parameters
    from calls.settings import Settings


@contextmanager
def asking(settings: Settings) -> Iterator[Callable[[str, Parameters], pa.Table]]:
    """What answers queries for as long as the block lasts. Raises QueryError, StoreError."""
    from analytics.client import Client, open_instead
    from analytics.query import Limits, Query

    try:
        client = Client.of(settings)
        client.version()
    except QueryError as error:
        if error.code != "unreachable":
            raise
        store = open_instead(settings, error)
        limits = Limits(timeout_s=settings.sql_timeout_s, max_rows=settings.sql_max_rows)
        try:
            yield lambda sql, params: Query(store.cursor, sql, params, limits).run().table
        finally:
            store.close()
    else:
        try:
            yield client.query
        finally:
            client.close()
