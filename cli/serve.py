"""The processes one by one: `ingest`, `worker`, `dashboard`."""

from __future__ import annotations

from typing import Annotated

import typer

from calls import settings as all_settings

app = typer.Typer()

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of the setting.")]
Host = Annotated[str | None, typer.Option(help="Instead of the setting.")]


@app.command()
def ingest(host: Host = None, port: Port = None, supervised: Supervised = False) -> None:
    """Receive webhooks: verify, make durable, answer."""
    from ingest import serve

    settings = all_settings.load(ingest_host=host, ingest_port=port)
    _begin(supervised)
    serve.run(settings, watch=all_settings.SourcesWatch(ingest_host=host, ingest_port=port))


@app.command()
def worker(host: Host = None, port: Port = None, supervised: Supervised = False) -> None:
    """Apply the journal to the store and answer SQL."""
    from cli import worker_process

    settings = all_settings.load_without_secrets(sql_host=host, sql_port=port)
    _begin(supervised)
    worker_process.run(settings)


@app.command()
def dashboard(host: Host = None, port: Port = None, supervised: Supervised = False) -> None:
    """Show the pages."""
    from dashboard import serve

    settings = all_settings.load_without_secrets(dashboard_host=host, dashboard_port=port)
    _begin(supervised)
    serve.run(settings)


def _begin(supervised: bool) -> None:
    from cli.logs import write_log
    from cli.supervised import end_with_supervisor

    write_log(readable=supervised)
    if supervised:
        end_with_supervisor()
