"""What pages ask the store; the only cache. An answer is kept for as long as the store holds the same rows.

One drawing of a page reads one version of the store: `begin` asks for it once, and everything drawn after it is of that
version or newer. While the worker does not answer, what was asked of the last version is still there to be shown.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import streamlit as st

from analytics import metric as all_metrics
from analytics.client import Answer, Client, Partition
from analytics.metric import Metric, Parameter, catalogue
from calls import relay_report
from calls import settings as all_settings
from calls.dead_letters import MISTAKES
from calls.errors import CalltallyError, QueryError
from calls.settings import Settings
from dashboard.filters import Choices
from dashboard.reader import Asked, Record, StoreReader, records

KEPT_BYTES = 64 << 20
KEPT_MOST = 2_000
ASK_AGAIN_S = 0.3
"""However many people look at pages, the worker is asked for its state this often at most."""
AHEAD = 2
"""Queries that a worker runs at a time."""
CHOICES_S = 10.0
"""A new agent is offered in the filters after so long; finding all of them reads every call."""


@dataclass(frozen=True, slots=True)
class Way:
    """What is under way between the journal and the store, where that leads through Kafka."""

    unpublished: int
    """Records of the journal that are not in Kafka yet; 0 where another machine has the journal."""
    stopped: str
    """Why nothing is published now, in a few words; empty while it is."""
    fullest: Partition
    """Where most records wait for the worker."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the worker is, as far as we know."""

    version: int
    """Which rows the store holds, or held when last seen; -1 where it was never seen."""
    lag: int
    """Webhooks that are received but not counted yet."""
    trouble: str
    """Why numbers do not move on, in a sentence; empty while all is well."""
    reachable: bool
    seen_at: datetime | None
    way: Way | None = None
    """None where Kafka is not used."""


@dataclass(slots=True)
class Drawing:
    """One drawing of a page: of which version and address it is, and what it asked, in order."""

    version: int
    address: str
    asked: dict[tuple[str, str], None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current the numbers are."""

    newest: datetime | None
    """When the newest webhook of a call arrived."""
    calls: int
    mistakes: int
    """Deliveries that count in no number by a mistake of Calltally."""


def begin(page: str) -> Pulse:
    """Take notice of the store as it is now, for all that is drawn from here on.

    What the last drawing of the same page asked is asked for at once, several at a time, before it is needed.
    """
    now = pulse()
    drawing = Drawing(now.version, f"{page}?{sorted(st.query_params.to_dict().items())}")
    last: Drawing | None = st.session_state.get("drawing")
    st.session_state["drawing"] = drawing
    if now.reachable and last is not None and last.address == drawing.address and last.version != drawing.version:
        _worker().ask_ahead(drawing.version, list(last.asked))
    return now


def pulse() -> Pulse:
    """How the worker is now; never raises."""
    return _worker().pulse()


def ask(sql: str, params: Mapping[str, Parameter] | None = None) -> list[Record]:
    """Rows of a query, from the cache where the store has not changed since. Raises QueryError."""
    return records(table(sql, params or {}))


def table(sql: str, params: Mapping[str, Parameter]) -> pa.Table:
    """Like `ask`, as an Arrow table."""
    drawing: Drawing = st.session_state["drawing"]
    asked = (sql, _one_form(params))
    drawing.asked[asked] = None
    return _worker().get(drawing.version, *asked)


def fresh(sql: str) -> Answer:
    """The rows of a query as they are this moment, past the cache. Raises QueryError."""
    return _worker().ask(sql, {})


def ahead(asked: Sequence[Asked]) -> None:
    """Begin to fetch what is about to be asked, several at a time."""
    version = st.session_state["drawing"].version
    _worker().ask_ahead(version, [(sql, _one_form(params)) for sql, params in asked])


def reader() -> StoreReader:
    """Reads metrics and queries through the cache."""
    return StoreReader(table, metrics(), ahead)


def freshness() -> Freshness:
    """How current the store is. Raises QueryError."""
    (row,) = ask(_FRESHNESS)
    newest = row["newest"]
    at = newest.replace(tzinfo=UTC) if isinstance(newest, datetime) else None
    return Freshness(at, int(str(row["calls"])), int(str(row["mistakes"])))


def choices() -> Choices:
    """What the filters offer. Raises QueryError."""
    return _worker().choices()


def value_choices(chosen: str, column: str, rollup: str = "rollup_calls") -> list[str]:
    """The values of a roll-up's column, most frequent first; a rare one only if it is chosen. Raises QueryError."""
    rows = ask(
        f"SELECT value FROM (SELECT \"{column}\" AS value, sum(calls) AS calls FROM {rollup} WHERE value <> '' "
        "GROUP BY value ORDER BY value = $chosen DESC, sum(calls) DESC, value LIMIT 200) ORDER BY calls DESC, value",
        {"chosen": chosen},
    )
    return [str(row["value"]) for row in rows]


def titles() -> Mapping[str, str]:
    """The providers' names for people."""
    return all_metrics.titles()


def sends(provider: str, column: str) -> bool:
    """Whether a provider can fill that column or list table at all."""
    return all_metrics.sends(provider, column)


@st.cache_resource(show_spinner=False)
def settings() -> Settings:
    """The dashboard's settings; no webhook secret is among them."""
    return all_settings.load_without_secrets()


@st.cache_resource(show_spinner=False)
def metrics() -> Mapping[str, Metric]:
    """Every metric, the people's own included."""
    return catalogue(settings().data_dir / "metrics")


def queries_folder() -> Path:
    """Where people keep their own queries."""
    return settings().data_dir / "queries"


class Kept:
    """Answers by what was asked, the least used given up first; what several ask at once is fetched once."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[int, str, str], Future[pa.Table]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, str, str], fetch: Callable[[], pa.Table]) -> pa.Table:
        """The answer, asked for now if it is not there. Raises what `fetch` raises, which is not kept."""
        with self._lock:
            waiting = self._found.get(key)
            if waiting is not None:
                self._found.move_to_end(key)
            else:
                mine = self._found[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            answer = fetch()
        except BaseException as error:
            with self._lock:
                self._found.pop(key, None)
            mine.set_exception(error)
            raise
        mine.set_result(answer)
        self._make_room(key, answer.nbytes)
        return answer

    def forget(self) -> None:
        """Give up everything."""
        with self._lock:
            self._found.clear()
            self._bytes = 0

    def _make_room(self, key: tuple[int, str, str], added: int) -> None:
        with self._lock:
            self._bytes += added if key in self._found else 0
            while (self._bytes > KEPT_BYTES or len(self._found) > KEPT_MOST) and len(self._found) > 1:
                first, oldest = next(iter(self._found.items()))
                if not oldest.done():
                    return
                del self._found[first]
                if oldest.exception() is None:
                    self._bytes -= oldest.result().nbytes


@dataclass
class Worker:
    """The worker as this process knows it: one connection, what it answered, how it was when last asked."""

    kept: Kept = field(default_factory=Kept)
    _client: Client | None = None
    _pulse: Pulse = Pulse(-1, 0, "", False, None)
    _asked_at: float = -1e9
    _choices: Choices | None = None
    _choices_of: tuple[int, float] = (-1, -1e9)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ahead: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AHEAD, thread_name_prefix="ahead"))

    def get(self, version: int, sql: str, params: str) -> pa.Table:
        """The rows of a query in that version or a newer one. Raises QueryError."""
        return self.kept.get((version, sql, params), lambda: self.ask(sql, json.loads(params)).table)

    def ask_ahead(self, version: int, asked: Sequence[tuple[str, str]]) -> None:
        """Begin to fetch answers that will be wanted; whoever wants one waits for it, or gets its error."""
        for sql, params in asked:
            self._ahead.submit(self.get, version, sql, params)

    def ask(self, sql: str, params: Mapping[str, Parameter]) -> Answer:
        """The rows of a query. Raises QueryError."""
        try:
            return self._connected().ask(sql, params)
        except QueryError as error:
            if error.code != "unauthorized":
                raise
            # The token was made anew with the data folder.
            self._client = None
            return self._connected().ask(sql, params)

    def pulse(self) -> Pulse:
        """How the worker is, asked for at most every `ASK_AGAIN_S`."""
        with self._lock:
            if time.monotonic() - self._asked_at >= ASK_AGAIN_S:
                self._pulse = self._felt(self._pulse)
                self._asked_at = time.monotonic()
            return self._pulse

    def choices(self) -> Choices:
        """What the filters offer, as old as `CHOICES_S` at most where the store has changed since."""
        version = st.session_state["drawing"].version
        of, at = self._choices_of
        if self._choices is None or (version != of and time.monotonic() - at >= CHOICES_S) or version < of:
            self._choices = _choices_now()
            self._choices_of = version, time.monotonic()
        return self._choices

    def _felt(self, last: Pulse) -> Pulse:
        try:
            client = self._connected()
            version, lag = client.state()
            said = client.readiness()
        except CalltallyError as error:
            if isinstance(error, QueryError) and error.code == "unauthorized":
                self._client = None
            return Pulse(last.version, last.lag, error.message, False, last.seen_at)
        if version < last.version:
            # Another store: what was kept under its version numbers is of the one before.
            self.kept.forget()
        return Pulse(version, lag, said.reason or "", True, datetime.now(UTC), _way(said.partitions))

    def _connected(self) -> Client:
        self._client = self._client or Client.of(settings())
        return self._client


@st.cache_resource(show_spinner=False)
def _worker() -> Worker:
    return Worker()


def _way(partitions: Sequence[Partition]) -> Way | None:
    if not partitions:
        return None
    folder = settings().data_dir
    report = relay_report.read(folder)
    stopped = ""
    if report is not None and not relay_report.running(folder):
        stopped = "no relay runs"
    elif report is not None and report.fault is not None:
        stopped = "Kafka takes nothing now"
    return Way(0 if report is None else report.lag, stopped, max(partitions, key=lambda one: one.lag))


def _choices_now() -> Choices:
    rows = ask("SELECT DISTINCT provider, org, direction, agent_id FROM rollup_calls")
    named = ask(
        "SELECT agent_id, arg_max(agent_name, last_received_at) AS name FROM calls "
        "WHERE agent_id IS NOT NULL AND agent_name <> '' GROUP BY agent_id"
    )
    names = {str(row["agent_id"]): str(row["name"]) for row in named}

    def there(column: str) -> set[str]:
        return {str(row[column]) for row in rows if row[column] is not None}

    agents = {agent: names.get(agent, agent) for agent in there("agent_id")}
    return Choices(
        orgs=_clients({(str(row["org"]), str(row["provider"])) for row in rows}),
        providers=sorted(there("provider")),
        agents=dict(sorted(agents.items(), key=lambda item: (item[1].casefold(), item[0]))),
        directions=sorted(there("direction")),
    )


def _clients(pairs: Set[tuple[str, str]]) -> list[str]:
    """The named orgs of these pairs of org and provider; none where they are one, or where platforms tell as much."""
    orgs, named = {org for org, _ in pairs}, {pair for pair in pairs if pair[0]}
    one_a_platform = len(pairs) == len({provider for _, provider in pairs})
    one_an_org = len(named) == len({org for org, _ in named})
    return [] if len(orgs) < 2 or (one_a_platform and one_an_org) else sorted(orgs - {""})


def _one_form(params: Mapping[str, Parameter]) -> str:
    return json.dumps(params, sort_keys=True)


_FRESHNESS = f"""
SELECT max(last_received_at) AS newest, count(*) AS calls,
    (SELECT count(*) FROM dead_letters WHERE reason IN {tuple(sorted(MISTAKES))}) AS mistakes
FROM calls
"""
