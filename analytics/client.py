"""The Python door to the store, for notebooks and for our own processes: SQL in, rows out.

    from analytics.client import query
    query("SELECT connection, count(*) AS calls FROM calls GROUP BY ALL")

With a worker running its SQL endpoint answers, otherwise the store's file is opened for the moment of the query; the
same is allowed and the same limits hold either way.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, overload

import httpx
import msgspec
import pyarrow as pa

from analytics.access import read_token
from analytics.answer import LAG_HEADER, TRUNCATED_HEADER, VERSION_HEADER, Answer
from calls import settings as all_settings
from calls.errors import QueryError, StoreLocked

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from calls.settings import Settings

__all__ = ["Answer", "Client", "Partition", "Readiness", "State", "ask", "open_instead", "query", "why_unreachable"]

_SPARE_S: Final = 5.0
_CONNECT_S: Final = 2.0
_PATIENCE_S: Final = 3.0


class State(NamedTuple):
    """What a worker says of its store."""

    version: int
    lag: int
    """Records of the journal that are not applied yet."""


@dataclass(frozen=True, slots=True)
class Partition:
    """How far a worker is in a partition that it reads from Kafka."""

    topic: str
    partition: int
    lag: int
    """Records that are not applied yet."""


class Readiness(msgspec.Struct, frozen=True):
    """Whether a worker keeps up, as it says itself."""

    reason: str | None = None
    """Why it does not; None while all is well."""
    partitions: tuple[Partition, ...] = ()
    """Of a worker that reads from Kafka."""


class Client:
    """One kept connection to a worker's SQL endpoint; any thread may use it."""

    def __init__(self, url: str, token: str, timeout: float = 20.0, patience: float = _PATIENCE_S) -> None:
        """`timeout` is for a query; `patience` for how the worker is, which costs it nothing to say."""
        self._url = url
        self._patience = httpx.Timeout(patience, connect=_CONNECT_S)
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout, connect=_CONNECT_S),
            # A proxy of the environment is for other machines.
            trust_env=False,
        )
        self._closing = weakref.finalize(self, self._http.close)

    @classmethod
    def of(cls, settings: Settings) -> Client:
        """The client for the worker that the settings name. Raises QueryError of code `unreachable` without a token."""
        return cls(*_access(settings))

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """The rows of a query. Raises QueryError (`code`: the server's, or unreachable)."""
        return self.ask(sql, params).table

    def ask(self, sql: str, params: Mapping[str, object] | None = None) -> Answer:
        """The rows of a query, whether they were cut off, and the store's version. Raises QueryError."""
        body = msgspec.json.encode({"sql": sql, "params": dict(params or {}), "format": "arrow"})
        response = self._send("POST", "/sql", body)
        table = pa.ipc.open_stream(response.content).read_all()
        return Answer(table, response.headers.get(TRUNCATED_HEADER) == "true", _version(response))

    def version(self) -> int:
        """The store's version, a number that changes with every batch; costs no query. Raises QueryError."""
        return self.state().version

    def state(self) -> State:
        """The store's version and how far it is behind; costs no query. Raises QueryError."""
        response = self._send("GET", "/version", timeout=self._patience)
        return State(_version(response), _number(response, LAG_HEADER))

    def readiness(self) -> Readiness:
        """Whether the worker keeps up. Raises QueryError where it does not answer."""
        response = self._answer("GET", "/readyz", timeout=self._patience)
        if response.status_code not in (200, 503):
            raise _refusal(response, self._url)
        try:
            return msgspec.json.decode(response.content, type=Readiness)
        except msgspec.MsgspecError:
            raise _refusal(response, self._url) from None

    def close(self) -> None:
        self._closing()

    def _send(
        self, method: str, path: str, body: bytes | None = None, *, timeout: httpx.Timeout | None = None
    ) -> httpx.Response:
        response = self._answer(method, path, body, timeout=timeout)
        if response.is_success:
            return response
        raise _refusal(response, self._url)

    def _answer(
        self, method: str, path: str, body: bytes | None = None, *, timeout: httpx.Timeout | None = None
    ) -> httpx.Response:
        request = self._http.build_request(method, path, content=body, timeout=timeout or self._http.timeout)
        try:
            try:
                return self._http.send(request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # The kept connection was closed meanwhile, as by a restart. To ask again changes nothing there.
                return self._http.send(request)
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout):
                raise _unreachable(self._url, "it takes no connection") from error
            if timeout is not None:
                raise _unreachable(self._url, "it takes connections and says nothing") from error
            raise QueryError(
                "The worker did not answer in time. Ask again, or narrow the query.", code="timeout"
            ) from error
        except httpx.HTTPError as error:
            raise _unreachable(self._url, why_unreachable(error)) from error


@overload
def query(
    sql: str,
    params: Mapping[str, object] | None = ...,
    *,
    as_arrow: Literal[False] = ...,
    settings: Settings | None = ...,
) -> pd.DataFrame: ...
@overload
def query(
    sql: str, params: Mapping[str, object] | None = ..., *, as_arrow: Literal[True], settings: Settings | None = ...
) -> pa.Table: ...
def query(
    sql: str, params: Mapping[str, object] | None = None, *, as_arrow: bool = False, settings: Settings | None = None
) -> pd.DataFrame | pa.Table:
    """The rows of a query as a pandas DataFrame, or an Arrow table. Raises QueryError, StoreError, SettingsError."""
    table = ask(sql, params, settings=settings).table
    return table if as_arrow else table.to_pandas()


def ask(sql: str, params: Mapping[str, object] | None = None, *, settings: Settings | None = None) -> Answer:
    """Like `query`, with whether the rows were cut off. Settings are those of the working folder if none are given."""
    settings = settings or all_settings.load_without_secrets()
    try:
        return _kept(*_access(settings)).ask(sql, params)
    except QueryError as error:
        if error.code != "unreachable":
            raise
        return _from_file(sql, params, settings, error)


def _access(settings: Settings) -> tuple[str, str, float]:
    token = settings.sql_token or read_token(settings.sql_token_path)
    if token is None:
        raise _unreachable(settings.sql_url, f"there is no {settings.sql_token_path} yet")
    return settings.sql_url, token, settings.sql_timeout_s + _SPARE_S


@lru_cache(maxsize=4)
def _kept(url: str, token: str, timeout: float) -> Client:
    return Client(url, token, timeout)


def _from_file(sql: str, params: Mapping[str, object] | None, settings: Settings, unreachable: QueryError) -> Answer:
    from analytics.query import Limits, Query

    store = open_instead(settings, unreachable)
    try:
        limits = Limits(timeout_s=settings.sql_timeout_s, max_rows=settings.sql_max_rows)
        answer = Query(store.cursor, sql, params or {}, limits).run()
        ((version,),) = store.execute("SELECT coalesce(sum(position), 0) FROM positions").fetchall()
        return answer._replace(version=int(version))
    finally:
        store.close()


def open_instead(settings: Settings, unreachable: QueryError) -> duckdb.DuckDBPyConnection:
    """The store's file, for a worker that cannot be reached.

    Raises QueryError where there is none, and StoreLocked where a worker has it all the same.
    """
    # Imported only here: a process that asks the worker needs no DuckDB of its own.
    from analytics.query import open_read_only

    if not settings.store_path.exists():
        raise QueryError(
            f"{unreachable.message} There is no store at {settings.store_path} either. Start `calltally up`.",
            code="unreachable",
        ) from unreachable
    try:
        return open_read_only(settings.store_path)
    except StoreLocked as error:
        raise StoreLocked(
            f"{error.message} Nothing answers at {settings.sql_url}, though: if the worker is just starting, ask again "
            "in a second; else check CALLTALLY_SQL_URL."
        ) from error


def why_unreachable(error: httpx.HTTPError) -> str:
    """What the system says of a failed connection, without its number."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def _version(response: httpx.Response) -> int:
    return _number(response, VERSION_HEADER)


def _number(response: httpx.Response, header: str) -> int:
    text = response.headers.get(header, "")
    return int(text) if text.isdigit() else 0


def _refusal(response: httpx.Response, url: str) -> QueryError:
    try:
        refusal = msgspec.json.decode(response.content, type=dict[str, str])
        return QueryError(refusal["message"], code=refusal["error"])
    except (msgspec.MsgspecError, KeyError):
        if response.is_server_error:
            return QueryError("The worker failed at this query; its log says why.", code="internal")
        return QueryError(
            f"{url} is no SQL endpoint of Calltally: it answered {response.status_code}.", code="unreachable"
        )


def _unreachable(url: str, why: str) -> QueryError:
    return QueryError(f"No worker answers at {url} ({why}).", code="unreachable")
