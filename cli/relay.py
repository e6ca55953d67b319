"""`calltally relay`: publish the journal to Kafka."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from calls import settings as all_settings

app = typer.Typer()


@app.command()
def relay(
    again_from: Annotated[
        int | None,
        typer.Option(min=1, help="Publish again from this position of the journal; repeats change nothing."),
    ] = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Publish the journal to Kafka, for workers started with --kafka."""
    from calls.crashes import trace_fatal_errors
    from cli.logs import write_log
    from cli.supervised import end_with_supervisor
    from ingest.relay import CRASHES_BESIDE, Relay
    from streams.collector import rare_collections

    settings = all_settings.load_without_secrets()
    write_log(readable=supervised)
    # The client tells of every attempt to connect; the relay says what it means, once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    publishing = Relay(settings, again_from=again_from)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: publishing.stop())
    trace_fatal_errors(settings.data_dir / CRASHES_BESIDE)
    if supervised:
        end_with_supervisor()
    with rare_collections():
        publishing.run()
