"""The real dashboard with and without its password: what a stranger, and a foreign page of this browser, get of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from dashboard.attempts import PER_ADDRESS
from dashboard.password import hashed
from tests.command import environment, run, told
from tests.waiting import until
from tools.ports import free_ports

PASSWORD = "four words of a kind"
HTML = {"accept": "text/html,*/*"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real dashboard, on all addresses of this machine, with a password."""
    yield from _dashboard(tmp_path_factory.mktemp("closed"), password_hash=hashed(PASSWORD), host="0.0.0.0")


@pytest.fixture(scope="module")
def open_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real dashboard as it is by default: on loopback, without a password."""
    yield from _dashboard(tmp_path_factory.mktemp("open"), url="https://behind-a-proxy.example.org")


def _dashboard(folder: Path, *, password_hash: str = "", host: str = "127.0.0.1", url: str = "") -> Iterator[str]:
    (port,) = free_ports(1)
    environ = {"CALLTALLY_DASHBOARD_HOST": host, "CALLTALLY_DASHBOARD_PORT": str(port), "CALLTALLY_DASHBOARD_URL": url,
               "CALLTALLY_DASHBOARD_PASSWORD_HASH": password_hash}  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "dashboard"], cwd=folder, env=environment(environ), stdout=log,
            stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: _healthy(url) or process.poll() is not None, (folder / "log").read_text)
        assert process.poll() is None, (folder / "log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_stcore/health", trust_env=False).text == "ok"
    except httpx.TransportError:
        return False


def test_nothing_that_streamlit_serves_is_before_the_password(closed: str) -> None:
    """Every route of the real server, found by asking it with a session first."""
    import streamlit

    static = Path(streamlit.__file__).parent / "static"
    files = sorted(f"/{path.relative_to(static)}" for path in static.rglob("*") if path.is_file())[:40]
    paths = ["/", "/calls", "/_stcore/host-config", "/_stcore/metrics", "/_stcore/allowed-message-origins",
             "/_stcore/script-health-check", "/_stcore/stream", "/auth/login", "/oauth2callback", "/favicon.png",
             *files]  # fmt: skip
    with httpx.Client(base_url=closed, trust_env=False) as stranger, httpx.Client(base_url=closed) as known:
        signed_in = known.post("/sign-in", data={"password": PASSWORD}, headers={"origin": closed})
        assert signed_in.status_code == 303
        assert "streamlit" in known.get("/", headers=HTML).text.lower()
        assert known.get("/_stcore/host-config").status_code == 200
        seen = {path: stranger.get(path) for path in paths}

    assert {path: answer.status_code for path, answer in seen.items() if answer.status_code != 401} == {}
    assert {answer.text for answer in seen.values()} == {"Sign in first.\n"}


def test_the_real_connection_is_refused_without_the_cookie(closed: str) -> None:
    """The handshake of the websocket that all pages live on."""
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    address = closed.replace("http", "ws") + "/_stcore/stream"
    with pytest.raises(InvalidStatus) as refused, connect(address, proxy=None):
        pass
    assert refused.value.response.status_code == 403

    answer = httpx.post(f"{closed}/sign-in", data={"password": PASSWORD}, headers={"origin": closed}, trust_env=False)
    cookie = answer.headers["set-cookie"].partition(";")[0]
    with connect(address, proxy=None, additional_headers={"cookie": cookie}) as connection:
        connection.ping()


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:9999", "http://127.0.0.1:1", "http://127.0.0.1", "http://0.0.0.0:1", "https://evil.example",
     "null", "http://{host}.evil.example", "http://evil.example@{host}", ""],
)  # fmt: skip
@pytest.mark.parametrize("which", ["closed", "open_here"])
def test_no_other_page_opens_a_connection(which: str, origin: str, request: pytest.FixtureRequest) -> None:
    """Neither one from elsewhere nor one of another port of this machine, to which the cookie is sent as well."""
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    url = request.getfixturevalue(which)
    headers = {}
    if which == "closed":
        answer = httpx.post(f"{url}/sign-in", data={"password": PASSWORD}, headers={"origin": url}, trust_env=False)
        headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]
    address = url.replace("http", "ws") + "/_stcore/stream"
    with connect(address, proxy=None, additional_headers={**headers, "origin": url}) as connection:
        connection.ping()

    headers["origin"] = origin.format(host=urlsplit(url).netloc)
    with pytest.raises(InvalidStatus) as refused, connect(address, proxy=None, additional_headers=headers):
        pass
    assert refused.value.response.status_code == 403


def test_a_stranger_cannot_say_that_he_is_somebody_else(closed: str) -> None:
    """Only a proxy whose address is in FORWARDED_ALLOW_IPS is believed: a new name for each try wins no tries."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")  # an address that no proxy has by default
    with httpx.Client(base_url=closed, transport=transport) as stranger:
        codes = [
            stranger.post(
                "/sign-in",
                data={"password": "a wrong one"},
                headers={
                    "origin": closed,
                    "x-forwarded-for": f"198.51.100.{number}",
                    "forwarded": f"for=10.0.0.{number}",
                },
            ).status_code
            for number in range(PER_ADDRESS + 1)
        ]
    assert codes == [401] * PER_ADDRESS + [429]


@pytest.mark.parametrize("host", ["rebound.example.org", "127.0.0.1.example.org", "localhost.evil.example", ""])
def test_without_a_password_a_foreign_page_of_this_browser_reads_nothing(open_here: str, host: str) -> None:
    """DNS rebinding: its name leads here, but `Host` stays its own."""
    for path in ("/", "/_stcore/host-config", "/_stcore/health"):
        assert httpx.get(open_here + path, headers={"host": host}, trust_env=False).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1", "[::1]:8501", "behind-a-proxy.example.org"])
def test_this_machine_and_the_proxy_before_it_are_known(open_here: str, host: str) -> None:
    """And the address that the settings name."""
    assert httpx.get(f"{open_here}/", headers={"host": host}, trust_env=False).status_code == 200


def test_health_is_told_to_who_watches_over_it(closed: str, tmp_path: Path) -> None:
    """`calltally health dashboard` is 0 where it runs, and 1 with a reason where it does not."""
    port = closed.rpartition(":")[2]
    well = run(tmp_path, "health", "dashboard", environ={"CALLTALLY_DASHBOARD_PORT": port})
    assert (told(well), well.stderr.decode()) == ("", "Dashboard is well.\n")

    gone = run(tmp_path, "health", "worker", environ={"CALLTALLY_SQL_PORT": str(free_ports(1)[0])})
    assert told(gone, 1) == ""
    assert "not running" in gone.stderr.decode()
    assert "no relay" in run(tmp_path, "health", "relay").stderr.decode()
