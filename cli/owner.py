"""What only the store's owner can do: asked of the worker that runs, or done here where none does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec

from analytics.access import read_token
from analytics.client import why_unreachable
from calls.errors import QueryError, StoreError, StoreLocked
from cli.output import Told, whole_file

if TYPE_CHECKING:
    from analytics.store import Store
    from calls.settings import Settings

CONNECT_S = 2.0


def findings(settings: Settings) -> list[str]:
    """What the store says is wrong with itself, a sentence each. Raises QueryError, StoreError."""
    try:
        with _asked(settings, "GET", "/verify") as response:
            return msgspec.json.decode(response.read(), type=dict[str, list[str]])["findings"]
    except _NobodyThere as nobody:
        with _opened(settings, nobody) as store:
            return store.verify()


def copy(settings: Settings, path: Path, told: Told) -> None:
    """Write a consistent copy of the public tables as a DuckDB file. Raises QueryError, StoreError, CalltallyError."""
    try:
        with _asked(settings, "POST", "/snapshot") as response:
            total, done = int(response.headers["content-length"]), 0
            with whole_file(path) as file:
                for chunk in response.iter_bytes(1 << 20):
                    file.write(chunk)
                    done += len(chunk)
                    told(done >> 20, total >> 20)
    except _NobodyThere as nobody:
        with _opened(settings, nobody) as store:
            store.snapshot(path)
    except httpx.HTTPError as error:
        raise QueryError(f"The worker broke off in the midst ({error}). Nothing was written; try again.") from error


class _NobodyThere(Exception):
    """No worker answers where the settings say it would."""


@contextmanager
def _asked(settings: Settings, method: str, path: str) -> Iterator[httpx.Response]:
    token = settings.sql_token or read_token(settings.sql_token_path)
    if token is None:
        raise _NobodyThere(f"there is no {settings.sql_token_path} yet")
    # These take as long as the store is large, so only the connection has a deadline.
    timeout = httpx.Timeout(None, connect=CONNECT_S)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=settings.sql_url, headers=headers, timeout=timeout, trust_env=False) as http:
        request = http.build_request(method, path)
        try:
            response = http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _NobodyThere(why_unreachable(error)) from error
        try:
            if not response.is_success:
                raise _refusal(response, settings.sql_url)
            yield response
        finally:
            response.close()


@contextmanager
def _opened(settings: Settings, nobody: _NobodyThere) -> Iterator[Store]:
    from analytics.store import Store

    path = settings.store_path
    if not path.exists():
        raise StoreError(f"There is no store at {path}, and no worker at {settings.sql_url}. Start `calltally up`.")
    try:
        store = Store.open(path, rules=settings.rules)
    except StoreLocked as error:
        raise StoreLocked(
            f"{error.message} Nothing answers at {settings.sql_url}, though ({nobody}): if the worker is just "
            "starting, try again in a second; else check CALLTALLY_SQL_URL."
        ) from error
    try:
        yield store
    finally:
        store.close()


def _refusal(response: httpx.Response, url: str) -> QueryError:
    try:
        refusal = msgspec.json.decode(response.read(), type=dict[str, str])
        return QueryError(refusal["message"], code=refusal["error"])
    except (msgspec.MsgspecError, KeyError):
        return QueryError(f"{url} is no worker of this Calltally: it answered {response.status_code}.")
