"""Runs the dashboard's own web server, with the settings of `streamlit.toml`."""

from __future__ import annotations

import hashlib
import hmac
import threading
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analytics.access import ensure_token
from analytics.metric import interval
from calls.errors import SettingsError
from calls.hosts import OnlyKnownHosts, is_loopback
from calls.settings import Settings
from dashboard.attempts import Attempts
from dashboard.origins import OnlyOwnPages
from dashboard.password import check_hash
from dashboard.sessions import Sessions
from dashboard.sign_in import WATCH, SignIn

HERE = Path(__file__).parent

log = structlog.get_logger("dashboard")


def refuse_strangers(settings: Settings) -> None:
    """Raises SettingsError where everybody on the network could look."""
    if is_loopback(settings.dashboard_host) or settings.dashboard_password_hash is not None:
        return
    raise SettingsError(
        f"The dashboard is to listen on {settings.dashboard_host}, which other machines can reach, and has no "
        "password. Make one with `calltally password`, or leave CALLTALLY_DASHBOARD_HOST at 127.0.0.1 and put a proxy "
        "with a login in front of it."
    )


def run(settings: Settings) -> None:
    """Serve the pages until SIGINT or SIGTERM. Raises SettingsError where that would show them to strangers."""
    refuse_strangers(settings)
    guards = _guards(settings)
    # Its import takes a second, which a refusal need not wait for.
    import streamlit

    options = dict(_flat(tomllib.loads((HERE / "streamlit.toml").read_text(encoding="utf-8"))))
    options |= {
        "server.address": settings.dashboard_host,
        "server.port": settings.dashboard_port,
        "browser.serverPort": settings.dashboard_port,
    }
    threading.Thread(target=_warm, name="warm", daemon=True).start()
    app = streamlit.App(HERE / "entry" / "start.py", middleware=guards, on_script_error=_page_failed)
    app.run(config=options)


class RightBase:
    """Tells the page where its server is.

    Without it the browser tries every part of a deep link as the server's address first, and each wrong one is an error
    in its console. Every page of ours is one word below the root, whatever proxy stands before it.
    """

    SCRIPT = '<script>window.__streamlit={BACKEND_BASE_URL:new URL(".",location.href).href}</script>'

    def __init__(self, app: ASGIApp, *, more: str = "") -> None:
        self._app = app
        self._scripts = f"{self.SCRIPT}{more}</head>".encode()

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
            body = body.replace(b"</head>", self._scripts, 1)
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


def _warm() -> None:
    """Import what the first page would wait for: charts and intervals take a second."""
    interval(1, 1)
    import dashboard.app  # noqa: F401


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


def _guards(settings: Settings) -> list[Middleware]:
    """What stands before Streamlit, outermost first."""
    ours = Middleware(OnlyOwnPages, url=settings.dashboard_url)
    if settings.dashboard_password_hash is None:
        # Without a password whoever reaches the page may read it: it must not be a foreign page of this very browser.
        return [
            Middleware(OnlyKnownHosts, urls=[settings.dashboard_url], setting="dashboard_url"),
            ours,
            Middleware(RightBase),
        ]
    check_hash(settings.dashboard_password_hash)
    own = ensure_token(settings.data_dir / "dashboard.key")
    key = hmac.new(own.encode(), settings.dashboard_password_hash.encode(), hashlib.sha256).digest()
    sign_in = Middleware(
        SignIn,
        password_hash=settings.dashboard_password_hash,
        sessions=Sessions(key),
        attempts=Attempts(),
        url=settings.dashboard_url,
        # Browsers keep the cookies of all ports of a host together.
        cookie=f"calltally_{settings.dashboard_port}",
    )
    return [ours, sign_in, Middleware(RightBase, more=WATCH)]


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
