"""The dashboard behind its password, in a real browser: nothing before it, everything after it, nothing again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from dashboard.password import hashed
from tests.e2e.browsing import Site, Watched, shows
from tests.e2e.conftest import start_site

pytestmark = pytest.mark.browser

PASSWORD = "four words of a test"


@pytest.fixture(scope="module")
def closed_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything running, the dashboard behind a password."""
    opened = start_site(tmp_path_factory, more=f'dashboard_password_hash = "{hashed(PASSWORD)}"')
    try:
        yield opened
    finally:
        opened.running.stop()


def test_who_knows_the_password_sees_live_pages_until_they_sign_out(closed_site: Site, tab: Watched) -> None:
    """A link leads through the form to its page; pages follow the store; signed out, there is only the form."""
    page, form = tab.page, tab.page.get_by_label("Password of this dashboard")
    page.goto(closed_site.url("calls", range="7d"))
    expect(form).to_be_visible()
    form.fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(closed_site.url("calls", range="7d"))
    expect(page.get_by_role("heading", name="Calls")).to_be_visible()

    page.goto(closed_site.url())
    for calls in (1, 2):
        closed_site.call()
        shows(page, "attempts", calls)
    assert page.evaluate("document.cookie.includes('calltally_')") is False

    page.get_by_role("button", name="Sign out").click()
    expect(form).to_be_visible()
    page.goto(closed_site.url("calls"))
    expect(form).to_be_visible()
