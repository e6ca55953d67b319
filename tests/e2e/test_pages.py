"""The pages in a real browser, over real processes: numbers, live updates, addresses, and nothing from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from analytics.access import read_token
from analytics.client import Client
from tests.e2e.test_up import COMMAND, ENVIRONMENT, Running
from tests.ports import free_ports

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SOURCES = "".join(
    f'[sources.{name}]\nsecrets = ["a-test-secret-of-{name}"]\n'
    for name in ("synthflow", "inboundflow", "aisync", "callsync")
)
HOSTILE = '<script>window.hacked = true</script><img src=x onerror="window.hacked = true"> **bold** $x^2$ :smile:'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing = "no Chromium here, so no page was looked at; on Debian: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Everything running, with calls of all four platforms."""
    folder = tmp_path_factory.mktemp("pages")
    ports = free_ports(3)
    names = ("ingest_port", "sql_port", "dashboard_port")
    lines = [f"{name} = {port}\n" for name, port in zip(names, ports, strict=True)]
    (folder / "calltally.toml").write_text("".join(lines) + SOURCES)
    running = Running([*COMMAND, "up"], folder, folder / "data", ports)
    try:
        running.until(lambda: running.ready(ports[0]) and running.ready(ports[1]), "ingest and worker are ready")
        running.until(lambda: any("dashboard" in line and "rl:" in line.lower() for line in running.lines), "the pages")
        for number, name in enumerate(("synthflow", "inboundflow", "aisync", "callsync")):
            send(running, name, "--count", "12", "--seed", str(number))
        yield running
    finally:
        running.stop()


@pytest.fixture
def page(browser: Browser, up: Running) -> Iterator[Page]:
    """A fresh tab; at the end it must have logged no error and asked no other host."""
    context = browser.new_context(viewport={"width": 1440, "height": 1200}, timezone_id="Europe/Berlin")
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    yield tab
    context.close()

    assert said == []
    assert [url for url in asked if not re.match(r"(https?://127\.0\.0\.1:|data:|blob:)", url)] == []


def send(up: Running, source: str, *options: str) -> None:
    command = [sys.executable, "-m", "cli.main", "send", source, *options]
    subprocess.run(command, cwd=up.data.parent, env=ENVIRONMENT, check=True, capture_output=True, timeout=60)


def asked(up: Running, sql: str) -> list[dict[str, Any]]:
    client = Client(f"http://127.0.0.1:{up.sql_port}", read_token(up.data / "sql.token") or "")
    try:
        rows: list[dict[str, Any]] = client.query(sql).to_pylist()
    finally:
        client.close()
    return rows


def attempts(up: Running) -> int:
    return int(asked(up, "SELECT count(*) AS n FROM calls WHERE excluded IS NULL")[0]["n"])


def address(up: Running, path: str = "/") -> str:
    return f"http://127.0.0.1:{up.dashboard_port}{path}"


def shown(page: Page, number: int) -> Callable[[], bool]:
    """Whether the first tile (Attempts) shows that number, whatever separates its thousands."""
    figure = page.locator("button.tile .figure").first
    return lambda: figure.count() == 1 and re.sub(r"\D", "", figure.inner_text()) == str(number)


def until(page: Page, condition: Callable[[], bool], what: str, seconds: float = 60) -> float:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        page.wait_for_timeout(50)
    raise AssertionError(f"not within {seconds} s: {what}\n{page.inner_text('body')[:2000]}")


def test_the_first_tile_equals_sql(page: Page, up: Running) -> None:
    """Attempts on the page are the calls that SQL counts."""
    page.goto(address(up))

    until(page, shown(page, attempts(up)), "the number of attempts")


def test_a_new_call_shows_without_a_reload(page: Page, up: Running) -> None:
    """A signed webhook changes the open page by itself."""
    page.goto(address(up))
    before = attempts(up)
    until(page, shown(page, before), "the number of attempts")

    send(up, "inboundflow", "--event", "call.completed")
    up.until(lambda: attempts(up) == before + 1, "the call is stored")

    until(page, shown(page, before + 1), "the new number of attempts", 20)


def test_the_address_keeps_the_filters(page: Page, up: Running) -> None:
    """A filtered page reloads as it was, and a wrong word in the address is dropped."""
    page.goto(address(up, "/?provider=callsync&range=30d&direction=nonsense"))
    calls = asked(up, "SELECT count(*) AS n FROM calls WHERE provider = 'callsync' AND excluded IS NULL")[0]["n"]
    until(page, shown(page, calls), "the calls of one platform")

    page.reload()

    until(page, shown(page, calls), "the same after a reload")
    assert "provider=callsync" in page.url
    assert "nonsense" not in page.url


def test_the_address_of_a_call_leads_to_it(page: Page, up: Running) -> None:
    """A link opens one call with all that is known of it; its hostile words stay words."""
    body = up.data.parent / "hostile.json"
    told = {"call_id": "hostile-1", "caller_name": HOSTILE, "duration_seconds": 61, "summary": HOSTILE}
    body.write_text(json.dumps({"event": "call.completed", "timestamp": "2026-11-20T10:00:00Z", "data": told}))
    send(up, "inboundflow", "--file", str(body))
    up.until(lambda: bool(asked(up, "SELECT 1 FROM calls WHERE call_id = 'hostile-1'")), "the call is stored")

    page.goto(address(up, "/calls?call=inboundflow//hostile-1"))

    expect(page.get_by_text("hostile-1").first).to_be_visible(timeout=30_000)
    expect(page.get_by_text("<script>").first).to_be_visible()
    assert page.evaluate("window.hacked") is None


def test_a_query_is_in_the_address_and_its_error_is_a_sentence(page: Page, up: Running) -> None:
    """The SQL page runs the query of its address, and says what is wrong with a bad one."""
    page.goto(address(up, "/sql?sql=SELECT%20count(*)%20AS%20answer%20FROM%20calls"))
    until(page, lambda: "1 row" in page.inner_text("body"), "the answer")

    page.goto(address(up, "/sql?sql=SELECT%20*%20FROM%20read_csv('/etc/passwd')"))
    until(page, lambda: "read_csv" in page.inner_text("body"), "the refusal")

    assert "Traceback" not in page.inner_text("body")


def test_the_page_is_back_when_the_worker_is(page: Page, up: Running) -> None:
    """With the worker killed the page says so or waits, and shows its numbers again without a reload."""
    page.goto(address(up))
    until(page, shown(page, attempts(up)), "the number of attempts")

    up.child("worker").kill()
    up.until(lambda: "worker was killed" in "\n".join(up.lines), "the worker is gone")
    up.until(lambda: up.ready(up.sql_port), "the worker is back")
    before = attempts(up)
    send(up, "inboundflow", "--event", "call.completed")

    until(page, shown(page, before + 1), "the numbers are back")
    assert "Traceback" not in page.inner_text("body")
