"""The running site, and the browser that looks at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.command import run, told
from tests.e2e.browsing import PROVIDERS, VIEWERS_ZONE, Site, Watched
from tests.e2e.test_up import COMMAND, Running
from tools.ports import free_ports

WAIT_MS = 60_000
"""Generous, since other tests are using the machine."""
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing = "no Chromium here, so no page was looked at; on Debian: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything running, with calls of all four platforms."""
    started = start_site(tmp_path_factory)
    try:
        for number, source in enumerate(PROVIDERS):
            _send(started, source, "--count", "30", "--seed", str(number))
        sent = started.number("SELECT max(position) FROM deliveries")
        started.running.until(
            lambda: started.number("SELECT max(position) FROM deliveries") >= sent, "all of it is applied"
        )
        yield started
    finally:
        started.running.stop()


@pytest.fixture(scope="module")
def empty_site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything running, and nothing received."""
    started = start_site(tmp_path_factory)
    try:
        yield started
    finally:
        started.running.stop()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Watched]:
    """A fresh tab; at the end it must have logged no error and asked no other host."""
    context = browser.new_context(viewport={"width": 1440, "height": 1200}, timezone_id=VIEWERS_ZONE)
    context.set_default_timeout(WAIT_MS)
    watched = Watched(context.new_page())
    yield watched
    context.close()

    assert watched.errors == []
    assert watched.from_outside() == []


def start_site(tmp_path_factory: pytest.TempPathFactory, *, more: str = "") -> Site:
    """Everything running, with a source of each platform and what else the settings are to say."""
    folder = tmp_path_factory.mktemp("site")
    ports = free_ports(3)
    names = ("ingest_port", "sql_port", "dashboard_port")
    lines = [f"{name} = {port}" for name, port in zip(names, ports, strict=True)]
    lines.append(more)
    lines += [f'[sources.{source}]\nsecrets = ["a-test-secret-of-{source}"]' for source in PROVIDERS]
    (folder / "calltally.toml").write_text("\n".join(lines))
    running = Running([*COMMAND, "up"], folder, folder / "data", ports)
    try:
        running.until(lambda: running.ready(ports[0]) and running.ready(ports[1]), "ingest and worker are ready")
        running.until(
            lambda: any("dashboard" in line and "url:" in line.lower() for line in running.lines), "the pages"
        )
    except BaseException:
        running.stop()
        raise
    return Site(running, folder)


def _send(started: Site, source: str, *options: str) -> None:
    told(run(started.folder, "send", source, *options))
