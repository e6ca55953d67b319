"""Which addresses only this machine reaches, and whether a request was meant for one of them.

A web page in a browser on this machine can give its own name an address of ours (DNS rebinding) and then read whatever
answers there without asking for a proof. What it cannot do is choose the `Host` header: that stays its own name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI application; its messages are dictionaries of what the specification says."""

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str | None:
    """The name in a `Host` header, without port, brackets and final dot; None where it is none."""
    found = _HOST.fullmatch(header)
    return found["name"].strip("[]").lower().rstrip(".") or None if found else None


class OnlyKnownHosts:
    """Refuses requests whose `Host` is neither this machine's own name for itself nor among the given addresses."""

    def __init__(self, app: App, *, urls: Iterable[str], setting: str) -> None:
        self._app = app
        self._known = frozenset(urlsplit(url).hostname for url in urls)
        self._refusal = (
            "This address is not known here, so nothing is shown: a foreign page might be asking. "
            f"If it is right, put it into the setting {setting} and start again.\n"
        ).encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._is_known(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(self._refusal)).encode())]
            # Its body, if any, is not read: nothing after it can be told apart from it.
            headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": 421, "headers": headers})
            await send({"type": "http.response.body", "body": self._refusal})

    def _is_known(self, scope: Message) -> bool:
        given = [value for name, value in scope["headers"] if name == b"host"]
        host = host_of(given[0].decode("latin-1")) if len(given) == 1 else None
        return host is not None and (is_loopback(host) or host.endswith(".localhost") or host in self._known)
