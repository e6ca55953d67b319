"""`calltally health`: whether one process is well, for those who restart or replace it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from calls import settings as all_settings
from calls.errors import CalltallyError
from cli import panels
from cli.output import say
from cli.probe import TIMEOUT_S, State, health

if TYPE_CHECKING:
    from calls.settings import Settings

app = typer.Typer()


class Process(StrEnum):
    """What can be asked for."""

    INGEST = "ingest"
    WORKER = "worker"
    RELAY = "relay"
    DASHBOARD = "dashboard"


@app.command("health", rich_help_panel=panels.CARE)
def health_of(process: Annotated[Process, typer.Argument(help="Which one of this machine (or container).")]) -> None:
    """Exit 0 if a process here is well, else 1 with the reason.

    Example: calltally health ingest
    """
    settings = all_settings.load_without_secrets()
    trouble = _TROUBLE[process](settings)
    if trouble:
        raise CalltallyError(f"{process.capitalize()} is not well: {trouble}")
    say(f"{process.capitalize()} is well.")


def _ingest(settings: Settings) -> str:
    return _answering(settings.ingest_url)


def _worker(settings: Settings) -> str:
    return _answering(settings.sql_local_url)


def _answering(url: str) -> str:
    found = health(url)
    return "" if found.state is State.READY else f"{found.state} at {found.address}. {found.detail}".strip()


def _relay(settings: Settings) -> str:
    from calls import relay_report

    report = relay_report.read(settings.data_dir)
    if not relay_report.running(settings.data_dir):
        return f"no relay of {settings.data_dir} runs."
    return report.fault.message if report is not None and report.fault is not None else ""


def _dashboard(settings: Settings) -> str:
    import httpx

    url = f"{settings.dashboard_local_url}/_stcore/health"
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        return f"nothing useful at {url} ({type(error).__name__})."
    return "" if answer.status_code == 200 and answer.text.strip() == "ok" else f"{answer.status_code} at {url}."


_TROUBLE = {Process.INGEST: _ingest, Process.WORKER: _worker, Process.RELAY: _relay, Process.DASHBOARD: _dashboard}
