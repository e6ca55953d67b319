"""The password in front of the dashboard: nothing passes without it, and it cannot be guessed, forged or outlived."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from calls.errors import SettingsError
from dashboard.attempts import OVERALL, PER_ADDRESS, WINDOW_S, Attempts
from dashboard.password import check_hash, fits, hashed
from dashboard.sessions import LASTS_S, Sessions
from dashboard.sign_in import SignIn
from tests.command import environment, run, told
from tools.ports import free_ports

PASSWORD = "Grüße aus vier Wörtern"
HASH = hashed(PASSWORD)
HOME = "http://dash.example.org"
HTML = {"accept": "text/html,*/*"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
KEY = b"a key of the tests"


@dataclass
class Clock:
    """Time that passes when it is told to."""

    now: float = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Door:
    """The guard before a page, a file, a health check and a connection, all of which say what they got."""

    url: str = HOME
    clock: Clock = field(default_factory=Clock)
    key: bytes = KEY
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def __post_init__(self) -> None:
        async def page(request: Request) -> PlainTextResponse:
            return PlainTextResponse(f"inside {request.url.path}", headers={"Cache-Control": "public, max-age=60"})

        async def live(socket: WebSocket) -> None:
            await socket.accept()
            try:
                while True:
                    await socket.send_text("again " + await socket.receive_text())
            except WebSocketDisconnect as left:
                self.left.append(left.code)

        self.left: list[int] = []
        inside = Starlette(routes=[WebSocketRoute("/_stcore/stream", live), Route("/{path:path}", page)])
        self.sessions = Sessions(self.key, now=self.clock)
        self.app = SignIn(
            inside, password_hash=HASH, sessions=self.sessions, attempts=Attempts(clock=self.clock), url=self.url,
            cookie="calltally_8501",
        )  # fmt: skip

    def ask(self, path: str, method: str = "GET", *, address: str = "192.0.2.1", **more: Any) -> httpx.Response:
        """What a browser at that address gets; it keeps its cookies."""

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(address, 4711))
            async with httpx.AsyncClient(transport=transport, base_url=HOME, cookies=self.cookies) as browser:
                answer = await browser.request(method, path, **more)
                self.cookies = browser.cookies
                return answer

        return asyncio.run(asked())

    def sign_in(self, password: str = PASSWORD, onward: str = "", **more: Any) -> httpx.Response:
        """Fill in the form."""
        headers = {"origin": HOME}
        headers.update(more.pop("headers", {}))
        return self.ask("/sign-in", "POST", data={"password": password, "next": onward}, headers=headers, **more)

    def connect(self, cookie: str | None, *incoming: Message, more: Message | None = None) -> list[Message]:
        """What a page's connection is sent, given these messages from the browser."""
        headers = [(b"host", b"dash.example.org"), *([(b"cookie", cookie.encode())] if cookie else [])]
        scope = {"type": "websocket", "path": "/_stcore/stream", "headers": headers, "query_string": b""}
        sent: list[Message] = []

        async def connected() -> None:
            waiting = [{"type": "websocket.connect"}, *incoming]

            async def receive() -> Message:
                if waiting:
                    return waiting.pop(0)
                if more is not None:
                    return more
                await asyncio.Event().wait()
                raise AssertionError

            async def send(message: Message) -> None:
                sent.append(message)

            await asyncio.wait_for(self.app({**scope, "scheme": "ws", "subprotocols": []}, receive, send), 20)

        asyncio.run(connected())
        return sent

    @property
    def cookie(self) -> str:
        return f"calltally_8501={self.cookies['calltally_8501']}"


@pytest.mark.parametrize(
    "path",
    ["/", "/calls?x=1", "/_stcore/host-config", "/_stcore/health/", "//_stcore/health", "/_stcore/health/../stream",
     "/media/abc.csv", "/component/x", "/static/js/index.js", "/_stcore/upload_file/a/b", "/%5fstcore/stream"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_without_signing_in_nothing_of_it_is_seen(path: str, method: str) -> None:
    """Pages lead to the form, everything else is 401, whatever the method."""
    for headers in ({}, HTML):
        answer = Door().ask(path, method, headers=headers)

        assert "inside" not in answer.text
        page = headers and method in ("GET", "HEAD")
        assert answer.status_code == (303 if page else 401)


def test_only_the_health_check_is_open() -> None:
    """It says ok and no more; other methods do not reach it."""
    door = Door()

    assert door.ask("/_stcore/health").text == "inside /_stcore/health"
    assert door.ask("/_stcore/health", "POST").status_code == 401


def test_the_connection_is_refused_without_a_session() -> None:
    """A websocket is closed before it is accepted, also with a forged cookie."""
    for cookie in (None, "calltally_8501=", f"calltally_8501={'0' * 32}.9999999999.{'0' * 64}", "other=1"):
        assert [message["type"] for message in Door().connect(cookie)] == ["websocket.close"]


def test_who_signs_in_gets_everything() -> None:
    """Page, file and connection, kept by nobody in between."""
    door = Door()
    answer = door.sign_in()
    text = {"type": "websocket.receive", "text": "hello"}
    sent = door.connect(door.cookie, text, more={"type": "websocket.disconnect", "code": 1000})

    assert answer.status_code == 303
    assert answer.headers["location"] == "./"
    assert door.ask("/media/abc.csv").text == "inside /media/abc.csv"
    assert door.ask("/media/abc.csv").headers["cache-control"] == "private, no-store"
    assert door.ask("/static/js/index.js").headers["cache-control"] == "public, max-age=60"
    assert [message.get("text") for message in sent] == [None, "again hello"]
    assert door.left == [1000]


@pytest.mark.parametrize(("url", "secure"), [(HOME, False), ("https://dash.example.org", True)])
def test_the_cookie_is_kept_from_scripts_and_other_sites(url: str, secure: bool) -> None:
    """HttpOnly, SameSite=Lax, and Secure where people come by https."""
    parts = Door(url=url).sign_in().headers["set-cookie"].split("; ")

    assert {"HttpOnly", "SameSite=lax", f"Max-Age={LASTS_S}"} <= set(parts)
    assert ("Secure" in parts) is secure
    # The browser then takes the folder of the page, whatever a proxy puts before it.
    assert not any(part.startswith(("Path", "Domain")) for part in parts)


def test_a_request_over_tls_makes_the_cookie_secure() -> None:
    """Also where no https address is set."""
    door = Door()
    assert "Secure" in door.ask(
        "https://dash.example.org/sign-in", "POST", data={"password": PASSWORD},
        headers={"origin": "https://dash.example.org"},
    ).headers["set-cookie"]  # fmt: skip


def test_a_session_ends_after_half_a_day() -> None:
    """To the second; the cookie is then worth nothing, whoever kept it."""
    door = Door()
    door.sign_in()
    door.clock.now += LASTS_S - 1
    assert door.ask("/calls").status_code == 200
    assert door.ask("/signed-in").text == "1"

    door.clock.now += 1
    assert door.ask("/calls").status_code == 401
    assert door.ask("/signed-in").text == "0"
    assert door.connect(door.cookie) == [{"type": "websocket.close", "code": 1008}]


def test_an_open_connection_ends_with_its_session() -> None:
    """Neither its expiry nor a sign-out leaves figures flowing."""
    door = Door()
    door.sign_in()
    door.clock.now += LASTS_S - 0.05

    async def time_passes() -> None:
        while not ended.is_set():
            await asyncio.sleep(0.01)
            door.clock.now += 0.01

    ended = asyncio.Event()
    sent: list[Message] = []

    async def connected() -> None:
        waiting = [{"type": "websocket.connect"}]

        async def receive() -> Message:
            if waiting:
                return waiting.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/_stcore/stream", "query_string": b"", "scheme": "ws",
                 "headers": [(b"cookie", door.cookie.encode())], "subprotocols": []}  # fmt: skip
        passing = asyncio.create_task(time_passes())
        await asyncio.wait_for(door.app(scope, receive, send), 20)
        ended.set()
        await passing

    asyncio.run(connected())
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert door.left == [1008]


def test_signing_out_ends_the_session_everywhere() -> None:
    """The cookie is deleted, a copy of it is void, and what was open under it is closed."""
    door = Door()
    door.sign_in()
    copy = door.cookie
    session = door.sessions.find(copy.partition("=")[2])
    assert session is not None

    async def open_connection() -> list[Message]:
        sent: list[Message] = []
        arrivals: asyncio.Queue[Message] = asyncio.Queue()
        arrivals.put_nowait({"type": "websocket.connect"})

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "websocket.accept":
                door.sessions.end(session)

        scope = {"type": "websocket", "path": "/_stcore/stream", "query_string": b"", "scheme": "ws",
                 "headers": [(b"cookie", copy.encode())], "subprotocols": []}  # fmt: skip
        await asyncio.wait_for(door.app(scope, arrivals.get, send), 20)
        return sent

    assert [message["type"] for message in asyncio.run(open_connection())] == ["websocket.accept", "websocket.close"]
    assert door.ask("/calls", headers={"cookie": copy}).status_code == 401

    door = Door()
    door.sign_in()
    copy = door.cookie
    assert door.ask("/sign-out").status_code == 200
    assert door.ask("/calls").status_code == 200
    left = door.ask("/sign-out", "POST", headers={"origin": HOME})
    assert left.headers["location"] == "./sign-in"
    assert "calltally_8501" not in door.cookies
    assert door.ask("/calls", headers={"cookie": copy}).status_code == 401


@given(st.data())
def test_no_flipped_bit_of_a_cookie_passes(data: st.DataObject) -> None:
    """Every character of it is signed, and written in one way only."""
    sessions = Sessions(KEY, now=Clock())
    token = sessions.begin()
    raw = bytearray(token.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    assert sessions.find(token) is not None
    assert sessions.find(raw.decode("latin-1")) is None


@given(st.text())
def test_no_made_up_cookie_passes(token: str) -> None:
    """Whatever it looks like, nothing breaks."""
    assert Sessions(KEY, now=Clock()).find(token) is None


def test_a_longer_life_cannot_be_written_into_a_cookie() -> None:
    """The time is part of what is signed."""
    clock = Clock()
    identity, expires_at, proof = Sessions(KEY, now=clock).begin().split(".")
    assert Sessions(KEY, now=clock).find(f"{identity}.{int(expires_at) + 1}.{proof}") is None


def test_another_key_ends_all_sessions() -> None:
    """The key is made of the hash, so a new password does."""
    clock = Clock()
    token = Sessions(KEY, now=clock).begin()
    assert Sessions(KEY + b"!", now=clock).find(token) is None


def test_a_wrong_password_says_so_and_gives_no_cookie() -> None:
    """401, the form again, and where to go after it is kept."""
    door = Door()
    answer = door.sign_in("not the password", "./calls?range=7d")

    assert answer.status_code == 401
    assert "This is not the password." in answer.text
    assert 'value="./calls?range=7d"' in answer.text
    assert "set-cookie" not in answer.headers


def test_tries_of_an_address_are_counted_and_the_page_says_when_to_try_again() -> None:
    """The right password does not help before that, and other addresses are not touched."""
    door = Door()
    for _ in range(PER_ADDRESS):
        assert door.sign_in("not the password").status_code == 401
        door.clock.now += 10
    refused = door.sign_in()

    assert refused.status_code == 429
    assert "Try again in 4 min 10 s." in refused.text
    assert refused.headers["retry-after"] == "250"
    assert door.sign_in(address="192.0.2.2").status_code == 303
    door.clock.now += WINDOW_S - 10 * PER_ADDRESS
    assert door.sign_in().status_code == 303


def test_tries_of_all_addresses_together_are_counted() -> None:
    """Many machines do not get many times as far."""
    clock = Clock()
    attempts = Attempts(clock=clock)
    waits = [attempts.wait_s(f"198.51.100.{number}") for number in range(OVERALL + 1)]

    assert waits == [0.0] * OVERALL + [WINDOW_S]
    clock.now += WINDOW_S
    assert attempts.wait_s("198.51.100.7") == 0


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    """A single machine commands 2^64 of them."""
    attempts = Attempts(clock=Clock())
    waits = [attempts.wait_s(f"2001:db8:0:1::{number:x}") for number in range(PER_ADDRESS + 1)]

    assert waits[-1] == WINDOW_S
    assert attempts.wait_s("2001:db8:0:2::1") == 0
    assert attempts.wait_s("::ffff:192.0.2.1") == attempts.wait_s("::ffff:192.0.2.9") == 0


def test_the_right_password_wipes_the_slate() -> None:
    """Who mistypes now and then is never locked out, and takes nothing from the others."""
    attempts = Attempts(clock=Clock())
    waits = []
    for _ in range(OVERALL):
        waits += [attempts.wait_s("192.0.2.1"), attempts.wait_s("192.0.2.1")]
        attempts.forgive("192.0.2.1")

    assert set(waits) == {0.0}


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://dash.example.org.evil.example"},
     {"origin": "http://dash.example.org:81"}, {"origin": "", "sec-fetch-site": "cross-site"}],
)  # fmt: skip
def test_forms_of_other_sites_are_refused(headers: dict[str, str]) -> None:
    """Neither signing in nor signing out can be done from a foreign page."""
    door = Door()
    refused = door.sign_in(headers=headers)
    assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)

    door.sign_in()
    assert door.ask("/sign-out", "POST", headers=headers).status_code == 403
    assert door.ask("/calls").status_code == 200


def test_a_foreign_form_without_an_origin_is_refused() -> None:
    """Where a browser sends no origin it tells where the form stood."""
    form = {"password": PASSWORD}
    assert Door().ask("/sign-in", "POST", data=form, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert Door().ask("/sign-in", "POST", data=form).status_code == 303


@pytest.mark.parametrize(
    "onward",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "./..//evil.example", ".//evil",
     "javascript:alert(1)", "./sign-out", "a/../../b", "calls\r\nX: y", "./calls%0d%0a", "http:evil.example", "@evil"],
)  # fmt: skip
def test_nobody_is_sent_elsewhere_after_signing_in(onward: str) -> None:
    """What is no page of ours becomes the first page."""
    answer = Door().sign_in(onward=onward)

    assert (answer.status_code, answer.headers["location"]) == (303, "./")


@given(st.text())
def test_wherever_it_leads_it_stays_here(onward: str) -> None:
    """For any text at all."""
    from dashboard.sign_in import _inside

    place = urlsplit(urljoin("https://here.example/below/sign-in", _inside(onward)))
    assert place[:2] == ("https", "here.example")
    assert re.fullmatch("/below/[A-Za-z0-9_-]*", place.path)


def test_a_link_leads_to_its_page_after_signing_in() -> None:
    """With its query, over the form, also where the page stands deeper."""
    door = Door()
    to_form = door.ask("/calls?range=7d&find=a%26b", headers=HTML).headers["location"]
    form = door.ask(urljoin("/calls", to_form), headers=HTML)
    (onward,) = re.findall('name="next" value="([^"]*)"', form.text)

    assert to_form.startswith("./sign-in?next=")
    assert door.sign_in(onward=onward.replace("&amp;", "&")).headers["location"] == "./calls?range=7d&find=a%26b"
    assert Door().ask("/a/b/c", headers=HTML).headers["location"] == "../.././sign-in"


def test_the_form_asks_nothing_of_anybody_else() -> None:
    """No script, no foreign picture or style; not to be framed; kept by nobody."""
    answer = Door().ask("/sign-in?next=%22%3E%3Cscript%3E", headers=HTML)
    policy = answer.headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script" not in answer.text
    assert re.findall(r'(?:src|href)="(?!data:)', answer.text) == []
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "sent",
    [{"content": b"x" * 20_000, "headers": FORM}, {"content": b"password=%ff%fe", "headers": FORM},
     {"content": b"&".join(b"a=b" for _ in range(50)), "headers": FORM},
     {"json": {"password": PASSWORD}}, {"files": {"password": b"x"}}, {"content": b""}],
)  # fmt: skip
def test_what_is_no_form_is_refused(sent: dict[str, Any]) -> None:
    """It costs no hashing and does not count as a try."""
    door = Door()
    assert [door.ask("/sign-in", "POST", **sent).status_code for _ in range(PER_ADDRESS + 1)] == [403] * 6
    assert door.sign_in().status_code == 303


def test_the_same_letters_fit_however_a_keyboard_sends_them() -> None:
    """A letter with its dots apart or in one piece."""
    import unicodedata

    assert fits(unicodedata.normalize("NFD", PASSWORD), HASH)
    assert not fits(PASSWORD.lower(), HASH)
    assert not fits("x" * 100_000, HASH)


def test_calltally_password_makes_a_hash_that_fits(tmp_path: Path) -> None:
    """The hash alone on stdout, the lines to paste beside it; the line works in the settings."""
    done = run(tmp_path, "password", stdin=PASSWORD + "\n")
    made = told(done).strip()
    words = done.stderr.decode()

    assert fits(PASSWORD, made)
    assert f'dashboard_password_hash = "{made}"' in words
    assert f"CALLTALLY_DASHBOARD_PASSWORD_HASH='{made}'" in words
    assert PASSWORD not in words


@pytest.mark.parametrize("password", ["short", "", "x" * 2000, "a tab\tin a password"])
def test_a_password_that_is_none_is_refused(tmp_path: Path, password: str) -> None:
    """Wrong usage, with what is needed."""
    done = run(tmp_path, "password", stdin=password + "\n")

    assert told(done, 2) == ""
    assert "12 to 1024" in done.stderr.decode()


@pytest.mark.parametrize(
    "eaten",
    [HASH[:50], HASH.replace("m=65536", "m="), HASH.replace("$argon2id", "$argon2")],
    ids=["its end", "a number", "half a word"],
)
def test_a_hash_that_lost_a_part_is_told(eaten: str) -> None:
    """Before anything starts: shells and compose files replace what stands after a `$`."""
    with pytest.raises(SettingsError, match="single quotes"):
        check_hash(eaten)


@pytest.mark.parametrize(
    ("command", "variable", "said"),
    [("dashboard", "CALLTALLY_DASHBOARD_HOST", "calltally password"), ("worker", "CALLTALLY_SQL_HOST", "SQL_TOKEN"),
     ("up", "CALLTALLY_DASHBOARD_HOST", "calltally password"), ("up", "CALLTALLY_SQL_HOST", "SQL_TOKEN")],
)  # fmt: skip
def test_beyond_loopback_nothing_opens_unguarded(tmp_path: Path, command: str, variable: str, said: str) -> None:
    """Wrong usage and one sentence, from the process itself and from `up`."""
    ports = dict(zip(("INGEST", "SQL", "DASHBOARD"), free_ports(3), strict=True))
    environ = {variable: "0.0.0.0", **{f"CALLTALLY_{name}_PORT": str(port) for name, port in ports.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", command], cwd=tmp_path, env=environment(environ), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
