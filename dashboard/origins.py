"""Which pages a form or a connection may come from: our own; no browser lets a page choose the origin it sends."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnOrigins:
    """The origins of pages that were asked for under the same `Host`, and of the address that people use."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._configured = f"{parts.scheme}://{parts.netloc}"

    def has(self, origin: str, host: str) -> bool:
        """Whether it is ours, asked under that host."""
        return origin in (f"http://{host}", f"https://{host}", self._configured)


class OnlyOwnPages:
    """Refuses connections that another page opens.

    Streamlit looks at the name alone and takes this machine's for its own, so a page of whatever else is served here
    under another port could read along, with the cookie of who is signed in. And it asks a service on the internet
    which names these are.
    """

    def __init__(self, app: ASGIApp, *, url: str) -> None:
        self._app = app
        self._own = OwnOrigins(url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or all(self._are_ours(Headers(scope=scope))):
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close", "code": 1008})

    def _are_ours(self, headers: Headers) -> Iterator[bool]:
        # A program that is no browser sends none.
        return (self._own.has(origin, headers.get("host", "")) for origin in headers.getlist("origin"))
