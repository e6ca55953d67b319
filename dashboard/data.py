"""What pages ask the store; the only cache. An answer is kept for as long as the store holds the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import streamlit as st
from analytics.client import Client

from analytics import metric as all_metrics
from analytics.metric import Metric, Parameter, catalogue
from calls import settings as all_settings
from calls.settings import Settings
from dashboard.filters import Choices
from dashboard.reader import StoreReader


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current the numbers are."""

    version: int
    newest_call: datetime | None
    newest_delivery: datetime | None
    calls: int


@st.cache_resource(show_spinner=False)
def settings() -> Settings:
    """The dashboard's settings; no webhook secret is among them."""
    return all_settings.load_without_secrets()


@st.cache_resource(show_spinner=False)
def client() -> Client:
    """The one connection to the store's owner."""
    return Client.of(settings())


@st.cache_resource(show_spinner=False)
def metrics() -> Mapping[str, Metric]:
    """Every metric, the people's own included."""
    return catalogue(settings().data_dir / "metrics")


def version() -> int:
    """Which rows the store holds now; raises QueryError where nobody answers."""
    return client().version()


def ask(sql: str, params: Mapping[str, Parameter] | None = None) -> pd.DataFrame:
    """Rows of a query, from the cache where the store has not changed since. Raises QueryError."""
    return table(sql, params).to_pandas()


def table(sql: str, params: Mapping[str, Parameter] | None = None) -> pa.Table:
    """Like `ask`, as an Arrow table."""
    return _table(version(), sql, json.dumps(params or {}, sort_keys=True))


def reader() -> StoreReader:
    """Reads metrics and queries through the cache."""
    return StoreReader(table, metrics())


def freshness() -> Freshness:
    """How current the store is. Raises QueryError."""
    now = version()
    row = _table(
        now,
        "SELECT (SELECT max(last_received_at) FROM calls) AS newest_call, "
        "(SELECT max(received_at) FROM deliveries WHERE verdict = 'accepted') AS newest_delivery, "
        "(SELECT count(*) FROM calls) AS calls",
        "{}",
    ).to_pylist()[0]
    return Freshness(now, _utc(row["newest_call"]), _utc(row["newest_delivery"]), int(row["calls"]))


def choices() -> Choices:
    """What the filters offer."""
    rows = ask("SELECT DISTINCT provider, direction, agent_id FROM rollup_calls")
    names = ask("SELECT agent_id, max(agent_name) AS name FROM calls WHERE agent_id IS NOT NULL GROUP BY agent_id")
    agents = dict(zip(names["agent_id"], names["name"], strict=True))
    known = sorted(rows["agent_id"].dropna().unique())
    return Choices(
        providers=sorted(rows["provider"].dropna().unique()),
        agents={agent: agents.get(agent) or agent for agent in known},
        directions=sorted(rows["direction"].dropna().unique()),
    )


def titles() -> Mapping[str, str]:
    """The providers' names for people."""
    return all_metrics.titles()


def sends(provider: str, column: str) -> bool:
    """Whether a provider can fill that column or list table at all."""
    return all_metrics.sends(provider, column)


def queries_folder() -> Path:
    """Where people keep their own queries."""
    return settings().data_dir / "queries"


@st.cache_data(show_spinner=False, max_entries=400)
def _table(version: int, sql: str, params: str) -> pa.Table:
    return client().query(sql, json.loads(params))


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
