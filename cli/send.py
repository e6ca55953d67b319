"""`calltally send`: signed sample traffic for one source, over real HTTP."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calls.errors import CalltallyError, SettingsError
from cli import panels

if TYPE_CHECKING:
    import httpx

    from calls.provider import Provider
    from calls.settings import Source

app = typer.Typer()

IN_FLIGHT_MAX = 32
_HEADERS = {"content-type": "application/json", "user-agent": "calltally-send"}


@app.command(rich_help_panel=panels.CONNECT)
def send(
    source: Annotated[str, typer.Argument(help="Name of the source to send as.")],
    event: Annotated[str | None, typer.Option(help="Only this event of the provider.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many calls (or bodies, with --event or --file).")] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Calls a second; 0 is as fast as it goes.")] = 0,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same calls.")] = None,
    file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send this body as it is.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of ingest, where it is not the one of the settings.")] = None,
) -> None:
    """Send signed sample traffic: made-up calls as the platform would send them, over HTTP to the running ingest.

    They count like real calls. The question of a waiting call (--event call_inbound) is asked as the platform asks it,
    unsigned, with the inbound_token of the source; its answer is shown. Exit code 1 where any of them is not answered
    200.

    Example: calltally send synthflow --count 20
    """
    from calls import settings as all_settings

    settings = all_settings.load()
    try:
        chosen = settings.sources[source]
    except KeyError:
        known = ", ".join(settings.sources) or "none yet; see `calltally sources add`"
        raise SettingsError(f"There is no source '{source}'. Known are: {known}.") from None
    try:
        address = all_settings.web_address(url or settings.ingest_url)
    except ValueError:
        raise typer.BadParameter(
            f"'{url}' is no address; write it like http://127.0.0.1:8000.", param_hint="--url"
        ) from None
    sender = Sender(chosen, f"{address}/webhooks/{source}")
    body = file.read_bytes() if file is not None else None
    answers = asyncio.run(sender.send(count=count, rate=rate, seed=seed, event=event, body=body))
    for (status, said), number in sorted(answers.items()):
        typer.echo(f"{number} answered {status}{f' ({said})' if said else ''}", err=True)
    if any(status != 200 for status, _ in answers):
        raise typer.Exit(1)


class Sender:
    """Posts bodies as one source, signed with its newest secret."""

    def __init__(self, source: Source, address: str) -> None:
        from calls.provider import named

        self._source = source
        self._provider: Provider = named(source.provider)
        self._address = address

    async def send(
        self,
        *,
        count: int,
        rate: float = 0,
        seed: int | None = None,
        event: str | None = None,
        body: bytes | None = None,
    ) -> Counter[tuple[int, str]]:
        """Send `count` calls, or a body so often, and count the answers. Raises CalltallyError if nobody listens."""
        import httpx

        answers: Counter[tuple[int, str]] = Counter()
        slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        limits = httpx.Limits(max_connections=IN_FLIGHT_MAX)
        # A proxy of the environment is for other machines' addresses, not for ours.
        async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=not _is_here(self._address)) as client:

            async def post(one: bytes) -> None:
                async with slots:
                    answers[await self.post(client, one)] += 1

            try:
                async with asyncio.TaskGroup() as tasks:
                    async for one in self._bodies(count, rate, seed, event, body):
                        # Waits for a free slot, so that a million calls are not a million tasks.
                        async with slots:
                            tasks.create_task(post(one))
            except ExceptionGroup as group:
                # Not `except*`: before Python 3.11.4 what is raised in there comes out as a group again.
                ours = group.subgroup(CalltallyError)
                raise (group if ours is None else ours.exceptions[0]) from None
        return answers

    async def post(self, client: httpx.AsyncClient, body: bytes) -> tuple[int, str]:
        """Post one body; the answer's status with a refusal's code, or with what a waiting call is told.

        Raises CalltallyError if nobody listens.
        """
        import httpx

        from calls import inbound_call

        asks = inbound_call.read(body) is not None
        token = self._source.inbound_token if asks else None
        try:
            answer = await client.post(
                self._address,
                params=None if token is None else {"token": token},
                content=body,
                # The platform signs a call's id, and this question has none.
                headers=_HEADERS if asks else self._headers(body),
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CalltallyError(
                f"Nobody answers at {self._address} ({type(error).__name__}). Start `calltally up` first."
            ) from None
        if answer.status_code != 200:
            return answer.status_code, _reason(answer)
        return answer.status_code, answer.text if asks else ""

    def _headers(self, body: bytes) -> dict[str, str]:
        from calls.signing import sign

        if not self._source.secrets:
            return _HEADERS
        signed_id = self._provider.signed_id(body) if self._provider.signed_id is not None else b""
        secret = self._source.secrets[0]
        return _HEADERS | sign(self._provider.scheme, secret, body, now_s=int(time.time()), signed_id=signed_id)

    async def _bodies(
        self, count: int, rate: float, seed: int | None, event: str | None, body: bytes | None
    ) -> AsyncIterator[bytes]:
        from calls.traffic import one_call

        dice = random.Random(seed)
        started = time.monotonic()
        for number in range(count):
            if rate:
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            if body is not None:
                yield body
                continue
            ended_at = int(time.time() * 1_000_000)
            for post in one_call(self._provider, dice=dice, ended_at=ended_at, event=event):
                yield post.body


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "this is not Calltally's answer"


def _is_here(address: str) -> bool:
    return address.startswith(("http://127.0.0.1", "http://[::1]", "http://localhost"))
