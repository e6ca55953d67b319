"""Whether each process has its port: free, or held by the process of this data folder; and who can reach it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from calls.errors import QueryError
from calls.hosts import is_loopback
from calls.journal_lock import writer_of
from cli.check import Finding, Level, Patient
from cli.ports import why_not
from cli.probe import Health, State


def check(patient: Patient) -> Iterator[Finding]:
    """Ports of ingest, worker and dashboard."""
    yield from _ingest(patient)
    yield from _worker(patient)
    yield from _dashboard(patient)
    yield from _exposed(patient)


def _ingest(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    writer = writer_of(settings.journal_path)
    if patient.ingest.state in (State.READY, State.UNREADY) and writer is None:
        yield _elsewhere("ingest", patient.ingest, "ingest_port")
        return
    if patient.ingest.state is State.ABSENT and writer is not None:
        yield Finding(
            Level.WRONG,
            f"Ingest (process {writer}) writes this journal, but nothing answers at {patient.ingest.address}.",
            "It listens elsewhere: start it with the settings of this folder, or name its port in ingest_port.",
        )
        return
    yield from _process("ingest", patient.ingest, settings.ingest_host, settings.ingest_port)


def _worker(patient: Patient) -> Iterator[Finding]:
    from analytics.client import Client

    settings = patient.settings
    if patient.worker.state in (State.READY, State.UNREADY):
        try:
            Client.of(settings).version()
        except QueryError as error:
            if error.code in ("unauthorized", "unreachable"):
                yield _elsewhere("worker", patient.worker, "sql_port")
                return
    yield from _process("worker", patient.worker, settings.sql_host, settings.sql_port, setting="sql_port")


def _dashboard(patient: Patient) -> Iterator[Finding]:
    host, port = patient.settings.dashboard_host, patient.settings.dashboard_port
    address = patient.settings.dashboard_local_url
    try:
        answer = httpx.get(f"{address}/_stcore/health", timeout=3, trust_env=False)
    except httpx.ConnectError:
        found = Health(address, State.ABSENT)
    except httpx.HTTPError as error:
        found = Health(address, State.FOREIGN, type(error).__name__)
    else:
        ours = answer.status_code == 200 and answer.text.strip() == "ok"
        found = Health(address, State.READY if ours else State.FOREIGN, "" if ours else f"{answer.status_code}")
    yield from _process("dashboard", found, host, port)


def _process(name: str, found: Health, host: str, port: int, *, setting: str | None = None) -> Iterator[Finding]:
    setting = setting or f"{name}_port"
    if found.state is State.READY:
        yield Finding(Level.OK, f"{name} runs at {found.address}.")
    elif found.state is State.UNREADY:
        yield Finding(Level.WRONG, f"{name} runs at {found.address}, but is not ready: {found.detail}", "See its log.")
    elif found.state is State.FOREIGN:
        yield Finding(
            Level.WRONG,
            f"Something that is not Calltally's {name} answers at {found.address} ({found.detail}).",
            f"Stop it, or choose another port with {setting} in calltally.toml.",
        )
    else:
        yield _free(name, host, port, setting)


def _free(name: str, host: str, port: int, setting: str) -> Finding:
    if (reason := why_not(host, port)) is not None:
        return Finding(
            Level.WRONG,
            f"{name} does not run, and could not: port {port} on {host} cannot be used ({reason}).",
            f"Stop what holds it, or choose another with {setting} in calltally.toml.",
        )
    return Finding(Level.OK, f"{name} does not run; port {port} on {host} is free for it.")


def _elsewhere(name: str, found: Health, setting: str) -> Finding:
    return Finding(
        Level.WRONG,
        f"The {name} that answers at {found.address} belongs to another data folder, not to this one.",
        f"Stop that one (perhaps `make demo` runs), or choose another port with {setting} in calltally.toml.",
    )


def _exposed(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    if not is_loopback(settings.sql_host) and settings.sql_token is None:
        yield Finding(
            Level.WRONG,
            f"The SQL endpoint is to listen on {settings.sql_host} without a token of its own: the worker will refuse.",
            'CALLTALLY_SQL_TOKEN="$(openssl rand -hex 32)", or leave sql_host at 127.0.0.1.',
        )
    if not is_loopback(settings.dashboard_host) and settings.dashboard_password_hash is None:
        yield Finding(
            Level.WRONG,
            f"The dashboard is to listen on {settings.dashboard_host} without a password: it will refuse to start.",
            "Make one with `calltally password`, or leave dashboard_host at 127.0.0.1 behind a proxy with a login.",
        )
    if not is_loopback(settings.ingest_host) and not settings.public_url.startswith("https://"):
        yield Finding(
            Level.NOTE,
            f"Webhooks are taken on {settings.ingest_host} without TLS, so callers' data travels readable.",
            "Put a TLS proxy in front, and name its address in public_url.",
        )
