"""`calltally up`: all processes side by side, in one folder, with one log."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ports import require_free
from cli.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from calls.settings import Settings

app = typer.Typer()


@app.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Made-up calls of every platform, in a folder of their own.")
    ] = False,
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Through Kafka: a relay publishes the journal, and the worker reads topics.")
    ] = False,
    demo_dir: Annotated[
        Path | None,
        typer.Option(help="Where the demo keeps its own data and settings.", show_default="demo-data, demo-kafka-data"),
    ] = None,
    demo_seconds: Annotated[float, typer.Option(help="Then no more demo calls come; 0 is never.", hidden=True)] = 0,
    dashboard: Annotated[bool, typer.Option(help="Run the dashboard, too.")] = True,
    ingest_port: Annotated[int | None, typer.Option(help="Instead of the setting.")] = None,
    sql_port: Annotated[int | None, typer.Option(help="Instead of the setting.")] = None,
    dashboard_port: Annotated[int | None, typer.Option(help="Instead of the setting.")] = None,
) -> None:
    """Run ingest, worker and dashboard together; restart what dies; stop in order on Ctrl-C.

    With --kafka a relay, too, which needs CALLTALLY_KAFKA_BOOTSTRAP_SERVERS. While Kafka is away webhooks are accepted
    and kept as ever, and published when it is back. SIGHUP starts every process anew, with the code and settings that
    are on disk by then, and no webhook is refused.
    """
    from calls import settings as all_settings
    from cli import demo as demo_data

    ports = {"ingest_port": ingest_port, "sql_port": sql_port, "dashboard_port": dashboard_port}
    chosen = {name: port for name, port in ports.items() if port is not None}
    folder = Path()
    environment = all_settings.child_environment(chosen)
    if demo:
        folder = demo_dir or Path("demo-kafka-data" if kafka else "demo-data")
        brokers = all_settings.load_without_secrets(folder).kafka_bootstrap_servers if kafka else ""
        demo_data.prepare(folder, {**chosen, **({"kafka_bootstrap_servers": brokers} if brokers else {})})
        environment = all_settings.child_environment(chosen, without_ours=True, but_kafka=kafka)
    settings = all_settings.load(folder, environment)
    if kafka:
        _check_kafka(settings, demo)
    history = demo and not settings.journal_path.exists()
    listener = _listen(settings)
    _check_ports(settings, dashboard)
    traffic = [*(["--history"] if history else []), f"--seconds={demo_seconds}"] if demo else None
    children = _children(settings, environment, listener, kafka=kafka, traffic=traffic, dashboard=dashboard)
    supervisor = Supervisor(children, folder=folder)
    _greet(supervisor, settings, demo=demo, kafka=kafka, dashboard=dashboard)
    raise typer.Exit(asyncio.run(supervisor.run()))


def _children(
    settings: Settings,
    environment: Mapping[str, str],
    listener: socket.socket,
    *,
    kafka: bool,
    traffic: list[str] | None,
    dashboard: bool,
) -> list[Child]:
    from calls.settings import without_secrets

    def child(name: str, *words: str, stop_order: int, ready_at: tuple[str, int] | None = None) -> Child:
        its_own = environment if name in ("ingest", "traffic") else without_secrets(environment)
        return Child(name, [sys.executable, "-m", "cli.main", *words], its_own, stop_order, ready_at)

    # Ingest stops first: what it acknowledged is in the journal, and who comes after it has a moment to pass it on.
    ingest_at = (settings.ingest_host, settings.ingest_port)
    sql_at = (settings.sql_host, settings.sql_port)
    ingest = child("ingest", "ingest", "--supervised", stop_order=1, ready_at=ingest_at)
    children = [replace(ingest, listener=listener)]
    if kafka:
        children.append(child("relay", "relay", "--supervised", stop_order=2))
    through = ["--kafka"] if kafka else []
    children.append(child("worker", "worker", *through, "--supervised", stop_order=3, ready_at=sql_at))
    if traffic is not None:
        children.append(child("traffic", "demo-traffic", *traffic, "--supervised", stop_order=0))
    if dashboard:
        children.append(child("dashboard", "dashboard", "--supervised", stop_order=4))
    return children


def _check_kafka(settings: Settings, demo: bool) -> None:
    """Raises SettingsError where the settings for Kafka cannot be used, CalltallyError where a demo must not use it."""
    from cli import demo as demo_data
    from ingest import broker

    broker.options(settings)
    if demo:
        demo_data.require_own_topics(settings)


def _listen(settings: Settings) -> socket.socket:
    """Take webhooks' connections from now on: until ingest reads them, they wait. Raises CalltallyError."""
    from ingest.listener import BACKLOG, bind

    listener = bind(settings)
    listener.listen(BACKLOG)
    return listener


def _check_ports(settings: Settings, dashboard: bool) -> None:
    wanted = [("sql_port", settings.sql_host, settings.sql_port)]
    if dashboard:
        wanted.append(("dashboard_port", settings.dashboard_host, settings.dashboard_port))
    for name, host, port in wanted:
        require_free(name, host, port)


def _greet(supervisor: Supervisor, settings: Settings, *, demo: bool, kafka: bool, dashboard: bool) -> None:
    if dashboard:
        host = "127.0.0.1" if settings.dashboard_host in ("0.0.0.0", "::") else settings.dashboard_host  # noqa: S104
        supervisor.say(f"dashboard  http://{host}:{settings.dashboard_port}")
    supervisor.say(f"webhooks   {settings.webhook_url('<source>')}")
    supervisor.say(f"data       {settings.data_dir.resolve()}")
    if kafka:
        supervisor.say(f"kafka      {settings.kafka_bootstrap_servers}")
    if demo:
        supervisor.say(
            "demo data only; when you have seen enough: Ctrl-C, then `calltally sources add` and `calltally up`"
        )
        activate = Path(sys.executable).parent / "activate"
        if shutil.which("calltally") is None and activate.exists():
            supervisor.say(f"in another terminal `calltally` is known after: source {activate}")
        supervisor.say(f"ask it yourself: cd {settings.data_dir} && calltally sql 'FROM calls LIMIT 5'")
    elif not settings.sources:
        supervisor.say("no source yet, so every webhook address is 404; add one with `calltally sources add`")
