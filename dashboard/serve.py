"""Runs the dashboard's own web server, with the settings of `streamlit.toml`."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calls.errors import SettingsError
from calls.settings import Settings

HERE = Path(__file__).parent

log = structlog.get_logger("dashboard")


def run(settings: Settings) -> None:
    """Serve the pages until SIGINT or SIGTERM. Raises SettingsError where that would show them to strangers."""
    _refuse_strangers(settings)
    # Its import takes a second, which a refusal need not wait for.
    import streamlit

    options = dict(_flat(tomllib.loads((HERE / "streamlit.toml").read_text(encoding="utf-8"))))
    options |= {
        "server.address": settings.dashboard_host,
        "server.port": settings.dashboard_port,
        "browser.serverPort": settings.dashboard_port,
    }
    app = streamlit.App(HERE / "entry" / "start.py", middleware=[Middleware(RightBase)], on_script_error=_page_failed)
    app.run(config=options)


class RightBase:
    """Tells the page where its server is.

    Without it the browser tries every part of a deep link as the server's address first, and each wrong one is an error
    in its console. Every page of ours is one word below the root, whatever proxy stands before it.
    """

    SCRIPT = b'<script>window.__streamlit={BACKEND_BASE_URL:new URL(".",location.href).href}</script></head>'

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None
        body = b""

        async def with_base(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if not headers.get("content-type", "").startswith("text/html") or "content-encoding" in headers:
                    await send(message)
                    return
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = body.replace(b"</head>", self.SCRIPT, 1)
            MutableHeaders(scope=start)["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        # The page is small and only read once: uncompressed it can be changed.
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        wants_page = any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
        if wants_page:
            await self._app({**scope, "headers": plain}, receive, with_base)
        else:
            await self._app(scope, receive, send)


def _page_failed(error: Exception) -> bool:
    """An error that nobody foresaw: the log gets it all, the page a sentence."""
    import streamlit

    log.error("a page failed", exc_info=error)
    streamlit.error(
        "This page failed; the log of the dashboard says why. Numbers are not affected: other pages and "
        "`calltally sql` read the same store.",
        icon=":material/error:",
    )
    return True


def _refuse_strangers(settings: Settings) -> None:
    if _is_loopback(settings.dashboard_host):
        return
    raise SettingsError(
        f"The dashboard would be open to everybody on {settings.dashboard_host}. Bind it to 127.0.0.1 "
        "(dashboard_host) and put a proxy with a login in front of it."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
