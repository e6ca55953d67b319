"""Demo traffic: made-up calls of every provider, signed and posted like real ones, in a folder of their own."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calls.errors import CalltallyError
from calls.settings import FILE_NAME, Settings, Source, load

if TYPE_CHECKING:
    import httpx

app = typer.Typer()

HISTORY_DAYS = 28
HISTORY_CALLS = 3000
LIVE_CALLS_PER_S = 0.5
DAY_US = 86_400 * 1_000_000
START_WAIT_S = 30


def prepare(folder: Path, chosen: Mapping[str, object]) -> None:
    """Make the demo's own settings file, with secrets made for the occasion; those of an existing one are kept.

    Ports and brokers are written down, so that commands in that folder find the processes.
    """
    import tomlkit

    from calls.provider import discover

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    document.update({"data_dir": ".", "demo": True, **chosen})
    sources = document.setdefault("sources", tomlkit.table(is_super_table=True))
    for name in discover():
        sources.setdefault(name, {"secrets": [secrets.token_hex(24)]})
    path.touch(mode=0o600)
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def require_own_topics(settings: Settings) -> None:
    """Raises CalltallyError where made-up calls would mix with what others publish, BrokerError without a broker."""
    from calls.journal_cursor import JournalCursor
    from ingest import broker, topics

    with broker.admin(settings) as client:
        its_id, records = topics.held(client)
    if not records:
        return
    if settings.journal_path.exists():
        cursor = JournalCursor(settings.journal_path, topics.cursor_name(its_id))
        try:
            if cursor.position():
                return
        finally:
            cursor.close()
    raise CalltallyError(
        f"The topics at {settings.kafka_bootstrap_servers} hold records that do not come from this demo, and made-up "
        "calls must not mix with them. Name a Kafka without topics of Calltally, or delete those."
    )


@app.command(hidden=True)
def demo_traffic(
    history: Annotated[bool, typer.Option(help="Begin with the calls of the last weeks.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed makes the same calls.")] = 7,
    seconds: Annotated[float, typer.Option(help="Nothing more is sent after so long; 0 goes on until stopped.")] = 0,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Post made-up calls of every source without end; run by `calltally up --demo`."""
    from cli.supervised import end_with_supervisor

    settings = load()
    if supervised:
        end_with_supervisor()
    address = f"http://{settings.ingest_host}:{settings.ingest_port}"
    asyncio.run(_run(list(settings.sources.values()), address, history, random.Random(seed), seconds))


@dataclass(frozen=True, slots=True)
class _Due:
    at: float
    """Seconds on the monotonic clock; 0 is at once."""
    source: Source
    body: bytes


async def _run(sources: list[Source], address: str, history: bool, dice: random.Random, seconds: float) -> None:
    import httpx

    from cli.send import Sender

    senders = {source.name: Sender(source, f"{address}/webhooks/{source.name}") for source in sources}
    answers: Counter[int] = Counter()

    async def post(due: _Due) -> None:
        status, _ = await senders[due.source.name].post(client, due.body)
        answers[status] += 1

    async with httpx.AsyncClient(timeout=30) as client:
        await _wait_until_ready(client, address)
        if history:
            started = time.monotonic()
            past = list(_history(sources, dice))
            for begin in range(0, len(past), 32):
                await asyncio.gather(*(post(due) for due in past[begin : begin + 32]))
            took_s = time.monotonic() - started
            typer.echo(f"{len(past)} webhooks of the last {HISTORY_DAYS} days, signed and posted in {took_s:.1f} s")
        typer.echo("live calls follow, about one a second; Ctrl-C stops everything")
        end = time.monotonic() + seconds if seconds else math.inf
        for due in _live(sources, dice):
            if due.at > end:
                break
            await asyncio.sleep(max(0.0, due.at - time.monotonic()))
            await post(due)
    accepted = answers.pop(200, 0)
    typer.echo(f"{accepted} webhooks accepted, {answers.total()} not; no more follow")
    # To end would be to be started again.
    await asyncio.Event().wait()


async def _wait_until_ready(client: httpx.AsyncClient, address: str) -> None:
    import httpx

    for _ in range(START_WAIT_S * 10):
        try:
            if (await client.get(f"{address}/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise CalltallyError(f"Ingest at {address} was not ready within {START_WAIT_S} s; its own lines above say why.")


def _history(sources: list[Source], dice: random.Random) -> Iterator[_Due]:
    from calls.provider import named
    from calls.traffic import one_call

    now = int(time.time() * 1_000_000)
    weights = [3 if source.provider == "synthflow" else 1 for source in sources]
    for _ in range(HISTORY_CALLS):
        source = dice.choices(sources, weights)[0]
        ended_at = _office_hours(now, dice)
        for post in one_call(named(source.provider), dice=dice, ended_at=ended_at):
            yield _Due(0, source, post.body)


def _office_hours(now: int, dice: random.Random) -> int:
    """A time in the last weeks, more often by day and on weekdays, with a slow rise towards today."""
    while True:
        back_days = HISTORY_DAYS * (1 - math.sqrt(dice.random()))
        at = now - int(back_days * DAY_US)
        hour = at // (3_600 * 1_000_000) % 24
        weekday = (at // DAY_US + 3) % 7
        if dice.random() < (1.0 if 8 <= hour < 18 else 0.15) * (1.0 if weekday < 5 else 0.3):
            return at


def _live(sources: list[Source], dice: random.Random) -> Iterator[_Due]:
    from calls.provider import named
    from calls.traffic import one_call

    at = time.monotonic()
    waiting: list[_Due] = []
    while True:
        at += dice.expovariate(LIVE_CALLS_PER_S)
        source = dice.choice(sources)
        ended_at = int((time.time() + at - time.monotonic()) * 1_000_000)
        for post in one_call(named(source.provider), dice=dice, ended_at=ended_at):
            waiting.append(_Due(at + min(post.after_s, 20), source, post.body))
        waiting.sort(key=lambda due: due.at)
        while waiting and waiting[0].at <= at:
            yield waiting.pop(0)
