"""The processes one by one: `ingest`, `worker`, `dashboard`."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from calls import settings as all_settings

app = typer.Typer()

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of the setting.")]
Host = Annotated[str | None, typer.Option(help="Instead of the setting.")]


@app.command()
def ingest(
    host: Host = None,
    port: Port = None,
    supervised: Supervised = False,
    listener: Annotated[int | None, typer.Option("--listener", hidden=True)] = None,
    passage: Annotated[tuple[int, int] | None, typer.Option("--passage", hidden=True)] = None,
    told: Annotated[int | None, typer.Option("--told", hidden=True)] = None,
) -> None:
    """Receive webhooks: verify, make durable, answer."""
    from cli.supervised import tell
    from ingest import serve
    from ingest.passage import Passage

    settings = all_settings.load(ingest_host=host, ingest_port=port)
    _begin(supervised)
    serve.run(
        settings,
        watch=all_settings.SourcesWatch(ingest_host=host, ingest_port=port),
        listener=None if listener is None else socket.socket(fileno=listener),
        passage=None if passage is None else Passage.of(passage),
        prepared=None if told is None else lambda: tell(told),
    )


@app.command()
def worker(
    host: Host = None,
    port: Port = None,
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Apply what the relay published to Kafka, instead of the journal here.")
    ] = False,
    from_oldest: Annotated[
        bool,
        typer.Option(
            "--from-oldest", help="With --kafka: go on with the oldest records there are, though some are gone."
        ),
    ] = False,
    supervised: Supervised = False,
) -> None:
    """Apply the journal to the store and answer SQL."""
    from cli import worker_process

    settings = all_settings.load_without_secrets(sql_host=host, sql_port=port)
    _begin(supervised)
    worker_process.run(settings, kafka=kafka, from_oldest=from_oldest)


@app.command()
def dashboard(host: Host = None, port: Port = None, supervised: Supervised = False) -> None:
    """Show the pages."""
    from cli.ports import require_free
    from dashboard import serve

    settings = all_settings.load_without_secrets(dashboard_host=host, dashboard_port=port)
    serve.refuse_strangers(settings)
    require_free("dashboard_port", settings.dashboard_host, settings.dashboard_port)
    _begin(supervised)
    serve.run(settings)


def _begin(supervised: bool) -> None:
    from cli.logs import write_log
    from cli.supervised import end_with_supervisor

    write_log(readable=supervised)
    if supervised:
        end_with_supervisor()
