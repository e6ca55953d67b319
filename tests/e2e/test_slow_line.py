"""A browser far away: what the server says comes late, and meanwhile the browser speaks for the page it still shows."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.e2e.browsing import Site, Watched, addressed, bar, point_at, settled, wait

pytestmark = pytest.mark.browser

TICKS = 3
"""How often the browser asks for news while it hears nothing; once a second."""


class Line:
    """The line between a tab and the dashboard's server, which can be made to keep what the server says."""

    def __init__(self, watched: Watched) -> None:
        self.asked = 0
        """How often the browser said something since then."""
        self._page = watched.page
        self._browser: WebSocketRoute | None = None
        self._kept: list[str | bytes] | None = None
        self._page.route_web_socket(re.compile("_stcore/stream"), self._join)

    def keep(self) -> None:
        """Let nothing through to the browser any more."""
        self._kept = []
        self.asked = 0

    def release(self, *, after: int) -> None:
        """Once the browser has said so many things in vain, bring all that was kept, in its order."""
        wait(self._page, lambda: self.asked >= after, "the browser speaks in vain")
        kept, self._kept = self._kept or [], None
        for message in kept:
            self._down(message)

    def _join(self, browser: WebSocketRoute) -> None:
        server = browser.connect_to_server()

        def up(message: str | bytes) -> None:
            self.asked += 1
            server.send(message)

        self._browser = browser
        browser.on_message(up)
        server.on_message(self._down)

    def _down(self, message: str | bytes) -> None:
        assert self._browser is not None
        if self._kept is None:
            self._browser.send(message)
        else:
            self._kept.append(message)


def test_a_bar_leads_to_its_calls_and_back_over_a_slow_line(tab: Watched, site: Site) -> None:
    """What the browser says of the overview after the click takes nobody back there, and no filter is lost."""
    page = tab.page
    line = Line(tab)
    page.goto(site.url(provider="synthflow", range="30d"))
    clicked = bar(page, "Analysis", "criterion: goal", "outcome: not met")
    point_at(page, clicked)
    line.keep()
    clicked.click()
    line.release(after=1 + TICKS)
    expect(page.get_by_role("heading", name="Calls", level=1)).to_be_visible()
    expect(page.get_by_text("; a row opens the call")).to_be_visible()
    addressed(page, provider="synthflow", range="30d", criterion="goal", judged="false", counted="yes")

    page.go_back()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    addressed(page, provider="synthflow", range="30d")
    assert "Traceback" not in "\n".join(site.running.lines)


def test_a_choice_on_a_page_that_is_being_left_counts_there(tab: Watched, site: Site) -> None:
    """The list is still on the screen; whoever changes it stays with it."""
    page = tab.page
    line = Line(tab)
    page.goto(site.url(provider="synthflow"))
    settled(page)
    line.keep()
    page.get_by_role("link", name="Calls").click()
    page.get_by_role("combobox", name="Range").click()
    page.get_by_role("option", name="Last 30 days").click()
    line.release(after=2)
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    addressed(page, provider="synthflow", range="30d")
    assert "Traceback" not in "\n".join(site.running.lines)
