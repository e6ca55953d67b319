"""Asks for the password in front of everything the dashboard serves: pages, files, and the connection they live on."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

import jinja2
import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard import words
from dashboard.attempts import Attempts
from dashboard.origins import OwnOrigins
from dashboard.password import fits
from dashboard.sessions import LASTS_S, Session, Sessions

HERE: Final = Path(__file__).parent
HEALTH: Final = "/_stcore/health"
"""The one address that anyone may ask: it says `ok`."""
WATCH: Final = (
    "<script>(()=>{let next;const look=async()=>{clearTimeout(next);"
    'const left=await fetch("signed-in",{cache:"no-store"}).then(r=>r.text()).catch(()=>"");'
    'if(left==="0")location.reload();else next=setTimeout(look,Math.min((+left||60)*1000,3e5))};'
    'addEventListener("visibilitychange",()=>document.hidden||look());look()})()</script>'
)
"""In every page: shows the sign-in page as soon as the session is over, instead of figures that stand still."""

_FORM_BYTES: Final = 16 << 10
_FORM_S: Final = 10.0
_AT_ONCE: Final = 2
"""Passwords that are judged at a time; each takes 64 MiB."""
_PAGE: Final = re.compile("[A-Za-z0-9_-]{0,64}")
_ADDRESS_LONGEST: Final = 6_000
_POLICY: Final = (
    "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)

log = structlog.get_logger("dashboard")


class SignIn:
    """ASGI middleware: what carries no valid session gets the sign-in page, a 401, or no connection."""

    def __init__(
        self, app: ASGIApp, *, password_hash: str, sessions: Sessions, attempts: Attempts, url: str, cookie: str
    ) -> None:
        self._app = app
        self._password_hash = password_hash
        self._sessions = sessions
        self._attempts = attempts
        self._over_tls = url.startswith("https:")
        self._origins = OwnOrigins(url)
        self._cookie = cookie
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._page = SignInPage()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        elif scope["type"] != "http" or (scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD")):
            await self._app(scope, receive, send)
        else:
            session = self._session(scope)
            try:
                response = await self._own(Request(scope, receive), session)
            except (ClientDisconnect, TimeoutError):
                response = PlainTextResponse("The form did not arrive.\n", 408, {"Connection": "close"})
            if response is not None:
                await response(scope, receive, send)
            else:
                await self._app(scope, receive, _never_kept(scope, send))

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._session(scope)
        if session is None:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        ended = self._sessions.watch(session)
        connection = _Connection(lambda: self._sessions.left_s(session), ended, receive, send)
        try:
            await self._app(scope, connection.receive, connection.send)
        finally:
            self._sessions.unwatch(session, ended)

    async def _own(self, request: Request, session: Session | None) -> Response | None:
        """The answer to what is ours alone; None for what goes on to the pages."""
        match request.scope["path"], request.method:
            case "/sign-in", "GET" | "HEAD":
                onward = _inside(request.query_params.get("next", ""))
                return _go(onward) if session else self._page.show(onward)
            case "/sign-in", "POST":
                return await self._judge(request)
            case "/sign-out", "GET" | "HEAD":
                return self._page.ask_to_leave() if session else _go("./sign-in")
            case "/sign-out", "POST":
                return self._leave(request, session)
            case "/signed-in", "GET":
                left_s = math.ceil(self._sessions.left_s(session)) if session else 0
                return PlainTextResponse(str(left_s), headers={"Cache-Control": "no-store"})
        if session is not None:
            return None
        if request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", ""):
            return _to_sign_in(request)
        return PlainTextResponse("Sign in first.\n", 401, {"Cache-Control": "no-store", "Connection": "close"})

    async def _judge(self, request: Request) -> Response:
        form = await _form(request)
        if form is None or not self._is_from_here(request):
            return self._page.show("./", "The form did not come from this page. Please try once more.", status=403)
        onward, password = _inside(form.get("next", "")), form.get("password", "")
        address = request.client.host if request.client else ""
        wait_s = self._attempts.wait_s(address)
        if wait_s > 0:
            again = f"Too many tries. Try again in {words.duration(math.ceil(wait_s))}."
            return self._page.show(onward, again, status=429, retry_after_s=math.ceil(wait_s))
        async with self._turns:
            right = await asyncio.to_thread(fits, password, self._password_hash)
        if not right:
            log.warning("a wrong password was tried", address=address)
            return self._page.show(onward, "This is not the password.", status=401)
        self._attempts.forgive(address)
        log.info("signed in", address=address)
        response = _go(onward)
        self._keep(response, request, self._sessions.begin(), LASTS_S)
        return response

    def _leave(self, request: Request, session: Session | None) -> Response:
        if not self._is_from_here(request):
            return self._page.ask_to_leave(status=403)
        if session is not None:
            self._sessions.end(session)
        response = _go("./sign-in")
        self._keep(response, request, "", 0)
        return response

    def _keep(self, response: Response, request: Request, token: str, seconds: int) -> None:
        secure = self._over_tls or request.scope["scheme"] == "https"
        # Without a path the browser takes the folder of this page, also where a proxy puts one before it.
        response.set_cookie(self._cookie, token, seconds, path=None, secure=secure, httponly=True, samesite="lax")

    def _is_from_here(self, request: Request) -> bool:
        """Whether a page of ours posted a form."""
        origin = request.headers.get("origin")
        if origin is None:
            return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        return self._origins.has(origin, request.headers.get("host", ""))

    def _session(self, scope: Scope) -> Session | None:
        token = HTTPConnection(scope).cookies.get(self._cookie)
        return self._sessions.find(token) if token else None


class _Connection:
    """A page's connection, which does not outlive the session that it was opened under."""

    def __init__(self, left_s: Callable[[], float], ended: asyncio.Event, receive: Receive, send: Send) -> None:
        self._left_s = left_s
        self._ended = ended
        self._receive = receive
        self._send = send
        self._closed = False

    async def receive(self) -> Message:
        if self._closed:
            return {"type": "websocket.disconnect", "code": 1008}
        arriving, ended = asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._ended.wait())
        try:
            left_s = max(0.0, self._left_s())
            await asyncio.wait((arriving, ended), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            over = self._ended.is_set() or self._left_s() <= 0
            if arriving.done() and (not over or arriving.result()["type"] == "websocket.disconnect"):
                return arriving.result()
        finally:
            ended.cancel()
            if not arriving.done():
                arriving.cancel()
        self._closed = True
        await self._send({"type": "websocket.close", "code": 1008, "reason": "The session is over."})
        return {"type": "websocket.disconnect", "code": 1008}

    async def send(self, message: Message) -> None:
        if not self._closed:
            await self._send(message)


class SignInPage:
    """The page that asks for the password, and the one that asks whether to leave."""

    def __init__(self) -> None:
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        self._template = environment.from_string((HERE / "sign_in.html").read_text(encoding="utf-8"))
        self._themes = tomllib.loads((HERE / "streamlit.toml").read_text(encoding="utf-8"))["theme"]
        self._logo = "data:image/svg+xml," + quote((HERE / "favicon.svg").read_text(encoding="utf-8"))

    def show(self, onward: str, problem: str = "", *, status: int = 200, retry_after_s: int = 0) -> Response:
        """The form; `onward` is where to go after it."""
        response = self._response(status, leaving=False, onward=onward, problem=problem)
        if retry_after_s:
            response.headers["Retry-After"] = str(retry_after_s)
        return response

    def ask_to_leave(self, *, status: int = 200) -> Response:
        return self._response(status, leaving=True, onward="", problem="")

    def _response(self, status: int, **told: object) -> Response:
        nonce = secrets.token_urlsafe(16)
        page = self._template.render(nonce=nonce, themes=self._themes, logo=self._logo, **told)
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY.format(nonce=nonce),
            # Not `no-referrer`: with it browsers send the form's origin as `null`.
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        return HTMLResponse(page, status, headers)


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a small form; None for anything else."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return None
    body = b""
    async with asyncio.timeout(_FORM_S):
        async for part in request.stream():
            body += part
            if len(body) > _FORM_BYTES:
                return None
    try:
        fields: Mapping[str, list[str]] = parse_qs(body.decode("ascii"), max_num_fields=10, errors="strict")
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}


def _to_sign_in(request: Request) -> Response:
    path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
    onward = _inside(path.lstrip("/") + (f"?{query}" if query else ""))
    asked = "" if onward == "./" else "?" + urlencode({"next": onward.removeprefix("./")})
    # Relative, since only the browser knows what a proxy puts before our paths.
    return _go("../" * (path.count("/") - 1) + "./sign-in" + asked)


def _inside(asked: str) -> str:
    """The page of ours that an address names, as a relative one: nothing else can come of it, whatever it says."""
    page, _, query = asked.removeprefix("./").partition("?")
    if not _PAGE.fullmatch(page) or page in ("sign-in", "sign-out", "signed-in") or len(query) > _ADDRESS_LONGEST:
        return "./"
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return "./"
    return f"./{page}" + (f"?{urlencode(pairs)}" if pairs else "")


def _go(place: str) -> Response:
    return RedirectResponse(place, 303, {"Cache-Control": "no-store"})


def _never_kept(scope: Scope, send: Send) -> Send:
    """Answers for those who are signed in must not be kept by what stands between; the program itself may."""
    if scope["path"].startswith("/static/"):
        return send

    async def send_it(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["cache-control"] = "private, no-store"
        await send(message)

    return send_it
