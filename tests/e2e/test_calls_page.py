"""The list of calls and one call, in a real browser, over real processes."""

from __future__ import annotations

import json
import re
from itertools import permutations
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect

from dashboard.pages.call_list import ROWS_A_PAGE
from dashboard.part import FOLDER
from tests.e2e.browsing import HOSTILE, PROVIDERS, Site, Watched, addressed, settled, wait

pytestmark = pytest.mark.browser


def rows(page: Page) -> Locator:
    """The rows of the list."""
    return page.get_by_role("table", name="Calls").locator("tbody tr")


def opened(page: Page) -> list[str]:
    """Which calls stand in the list; the times beside them go on by themselves."""
    found: list[str] = rows(page).evaluate_all("(all) => all.map((row) => row.dataset.id)")
    return found


def test_a_call_is_found(tab: Watched, site: Site) -> None:
    """By its number in any spelling, by words of what was said, by name."""
    site.call(
        caller_name="Olga Ünlü", caller_phone="+493055501234",
        summary="Will im Laden Ziegenkäse holen und drei Stück bestellen.",
    )  # fmt: skip
    page = tab.page
    page.goto(site.url("calls"))
    numbers = ("+49 (0)30 5550 1234", "0049-30-55501234", "030/5550.1234", "5550 1234")
    for typed in (*numbers, "ziegenkäse BESTELLEN", "Olga"):
        page.get_by_role("textbox", name="Find").fill(typed)
        page.keyboard.press("Enter")
        addressed(page, find=typed)
        expect(rows(page)).to_have_count(1)
        expect(rows(page)).to_contain_text("Olga Ünlü")


def test_a_phone_number_is_masked_in_the_list_and_whole_in_the_call(tab: Watched, site: Site) -> None:
    """The list may be seen over a shoulder; who opens the call wants to call back."""
    site.call(call_id="masked", caller_name="+14155550123", caller_phone="+14155550123")
    page = tab.page
    page.goto(site.url("calls", find="masked"))
    expect(rows(page)).to_have_count(1)
    assert "5550" not in rows(page).inner_text().replace("-", "").replace(" ", "")

    rows(page).get_by_role("link").click()

    expect(page.get_by_text("+1 415-555-0123").first).to_be_visible()


def test_the_address_holds_filter_sort_and_page(tab: Watched, site: Site) -> None:
    """A reload shows the same rows; Back leads to the page before; a page that is not there is the last one."""
    page = tab.page
    page.goto(site.url("calls", sort="longest", connection="person"))
    expect(rows(page)).to_have_count(15)
    first = opened(page)
    page.get_by_role("button", name="Page 2").or_(page.get_by_text("2", exact=True)).first.click()
    expect(page).to_have_url(re.compile("page=2"))
    wait(page, lambda: opened(page) not in ([], first), "the second page")

    page.reload()
    wait(page, lambda: opened(page) not in ([], first), "the second page again")

    page.go_back()
    wait(page, lambda: opened(page) == first, "the first page")
    page.goto(site.url("calls", connection="person", page="999"))
    expect(rows(page).first).to_be_visible()
    expect(page).not_to_have_url(re.compile("999"))


@pytest.mark.parametrize("width", [390, 769, 1440])
def test_each_of_a_few_pages_has_a_button(tab: Watched, site: Site, width: int) -> None:
    """Where so few are, nobody should have to walk through them by arrows."""
    page = tab.page
    page.set_viewport_size({"width": width, "height": 900})
    for provider in PROVIDERS:
        page.goto(site.url("calls", provider=provider))
        told = page.get_by_text("a row opens the call").inner_text()
        pages = -(-int(told.split()[0]) // ROWS_A_PAGE)
        assert 2 <= pages <= 5
        expected = [str(number) for number in range(1, pages + 1)]
        buttons = page.get_by_role("button", name=re.compile("^Page [0-9]+$"))
        wait(page, lambda buttons=buttons, expected=expected: buttons.all_inner_texts() == expected, provider)  # type: ignore[misc]


def test_a_long_name_leaves_the_number_in_sight(tab: Watched, site: Site) -> None:
    """Who calls back looks for the number, however much room the name takes."""
    name = "Maximiliane Alexandra Friederike von Hohenlohe-Schillingsfürst zu Waldenburg"
    site.call(call_id="long-name", caller_name=name, caller_phone="+493055501234")
    page = tab.page
    page.goto(site.url("calls", find="long-name"))
    person = rows(page).locator("td").nth(1)
    expect(person).to_contain_text("34")

    for width in (1440, 1024, 390):
        page.set_viewport_size({"width": width, "height": 900})
        number, cell = person.locator(".below").bounding_box(), person.bounding_box()
        assert number is not None, width
        assert cell is not None, width
        assert number["x"] + number["width"] <= cell["x"] + cell["width"], width
        assert number["y"] + number["height"] <= cell["y"] + cell["height"], width


def test_a_row_opens_the_call_and_back_leads_to_the_list_as_it_was(tab: Watched, site: Site) -> None:
    """By mouse and by keyboard; the address alone leads there, too."""
    page = tab.page
    page.goto(site.url("calls", provider="synthflow"))
    link = rows(page).get_by_role("link").nth(2)
    person = rows(page).nth(2).locator("td").nth(1).inner_text()
    settled(page)
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="All calls")).to_be_visible()
    expect(page).to_have_url(re.compile(r"call=synthflow%2F%2F"))
    there = page.url

    page.go_back()
    expect(rows(page).first).to_be_visible()
    expect(page).to_have_url(re.compile("provider=synthflow"))
    assert person in page.get_by_role("table", name="Calls").inner_text()

    page.goto(there)
    expect(page.get_by_role("button", name="All calls")).to_be_visible()
    page.get_by_role("button", name="All calls").click()
    expect(rows(page).first).to_be_visible()
    expect(page).to_have_url(re.compile("provider=synthflow"))


def test_a_row_that_changes_its_place_keeps_the_focus(tab: Watched, site: Site) -> None:
    """Who walks through the list by keyboard goes on from where they are, whatever arrives meanwhile."""
    for number in (1, 2, 3):
        site.call(call_id=f"rising-{number}")
    page = tab.page
    page.goto(site.url("calls", find="rising-", sort="changed"))
    wait(page, lambda: [_number(row) for row in opened(page)] == ["3", "2", "1"], "the last changed first")
    settled(page)
    link = rows(page).filter(has=page.locator('a[href*="rising-2"]')).get_by_role("link")
    link.focus()

    site.post("inboundflow", json.dumps({"event": "call.transferred", "data": {"call_id": "rising-2"}}).encode())

    wait(page, lambda: [_number(row) for row in opened(page)] == ["2", "3", "1"], "it is on top")
    expect(link).to_be_focused()


def test_whatever_comes_goes_or_moves_the_row_with_the_focus_keeps_it(tab: Watched) -> None:
    """As long as it is listed, wherever it stood and stands."""
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("shared.js", "table.js"))
    after = ["".join(rows) for length in range(1, 5) for rows in permutations("ABCDN", length)]
    changes = [(held, rows) for rows in after for held in "ABCD" if held in rows]

    wrong = tab.page.evaluate(
        """async ([script, changes]) => {
            const table = await import(URL.createObjectURL(new Blob([script], {type: "text/javascript"})));
            const draw = (parentElement, rows) => table.default({parentElement, data: {
                columns: [{title: "Who"}],
                rows: [...rows].map((id) => ({id, href: "?" + id, cells: [{text: id}]})),
            }});
            return changes.filter(([held, rows]) => {
                const place = document.body.appendChild(document.createElement("div"));
                draw(place, "ABCD");
                place.querySelector(`[data-id="${held}"] a`).focus();
                draw(place, rows);
                const shown = [...place.querySelectorAll("tbody tr")].map((row) => row.dataset.id).join("");
                const focused = document.activeElement.closest("tr")?.dataset.id;
                place.remove();
                return shown !== rows || focused !== held;
            });
        }""",
        [script, changes],
    )

    assert wrong == []


def test_a_call_shows_all_that_is_known_of_it(tab: Watched, site: Site) -> None:
    """Transcript, analysis with feedback, variables, actions, timeline and the raw delivery."""
    (call,) = site.sql(
        "SELECT call_id, transcript, feedback FROM calls JOIN call_analysis USING (provider, org, call_id) "
        "WHERE provider = 'synthflow' AND transcript <> '' AND feedback <> '' ORDER BY call_id LIMIT 1"
    )
    (variable,) = site.sql(f"SELECT name FROM call_variables WHERE call_id = '{call['call_id']}' ORDER BY name LIMIT 1")
    (event,) = site.sql(f"SELECT event FROM call_events WHERE call_id = '{call['call_id']}' LIMIT 1")
    page = tab.page
    page.goto(site.url("calls", call=f"synthflow//{call['call_id']}"))
    said = call["transcript"].splitlines()[0].partition(":")[2].strip()

    expect(page.get_by_text(said).first).to_be_visible()
    for section, told in (
        ("Analysis", call["feedback"]),
        ("Variables", variable["name"]),
        ("Timeline", event["event"]),
        ("Raw deliveries", "end_call_reason"),
    ):
        page.get_by_role("radio", name=section).or_(page.get_by_role("button", name=section)).first.click()
        expect(page.get_by_text(told).last).to_be_visible()
    page.reload()
    expect(page.get_by_text("end_call_reason").last).to_be_visible()


def test_times_are_in_the_viewers_zone(tab: Watched, site: Site) -> None:
    """12:00 UTC of a winter day is 13:00 in Berlin, and the zone of the address wins."""
    site.call(call_id="noon", at="2026-01-15T12:00:00Z")
    page = tab.page
    page.goto(site.url("calls", call=f"inboundflow/{_org(site, 'noon')}/noon"))
    expect(page.get_by_text("Thu 15 Jan 2026 13:00:00 Europe/Berlin")).to_be_visible()

    page.goto(site.url("calls", call=f"inboundflow/{_org(site, 'noon')}/noon", zone="Asia/Tokyo"))
    expect(page.get_by_text("Thu 15 Jan 2026 21:00:00 Asia/Tokyo")).to_be_visible()


def test_hostile_words_stay_words_everywhere(tab: Watched, site: Site) -> None:
    """Markup, Markdown, formulas, emoji names and signs that turn the reading direction do nothing on any page."""
    site.sample(
        "synthflow", "post_call", call_id="hostile", transcript=f"bot: {HOSTILE}\nhuman: {HOSTILE}",
        end_call_reason=HOSTILE, status=HOSTILE, model_id=HOSTILE,
    )  # fmt: skip
    site.running.until(lambda: bool(site.sql("SELECT 1 AS one FROM calls WHERE call_id = 'hostile'")), "the call")
    page = tab.page
    for address in (
        site.url(),
        site.url("calls", find="hostile"),
        site.url("calls", call="synthflow//hostile"),
        site.url("calls", call="synthflow//hostile", show="timeline"),
        site.url("calls", call="synthflow//hostile", show="raw"),
        site.url("sql", sql="SELECT * FROM calls WHERE call_id = 'hostile'"),
        site.url("sql", sql=f"SELECT * FROM nothing WHERE '{HOSTILE}' = 1 -- {HOSTILE}"),
        site.url("calls", find=HOSTILE, call=quote(HOSTILE)),
    ):
        page.goto(address)
        page.get_by_role("heading", level=1).or_(page.get_by_text("There is no such call")).first.wait_for()
        wait(page, lambda: not page.locator('[data-testid="stStatusWidget"]').count(), "the page is drawn")
        assert page.evaluate("window.hacked") is None, address
        assert page.locator('img[src="x"], a[href^="javascript"], .katex').count() == 0, address
        assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in page.inner_text("body"), address
        if "show=raw" not in address and "/sql" not in address:
            assert "\u202e" not in page.inner_text("body"), address


def test_a_call_that_is_not_there_is_said_so(tab: Watched, site: Site) -> None:
    """A cut-off or made-up address is no error."""
    page = tab.page
    for call in ("synthflow//nobody", "nonsense", "a/b/c/d/e", "%00/%ff/x"):
        page.goto(site.url("calls", call=call))
        expect(page.get_by_text("There is no such call.")).to_be_visible()


def _number(row: str) -> str:
    return row.rpartition("-")[2]


def _org(site: Site, call_id: str) -> str:
    return str(site.sql(f"SELECT org FROM calls WHERE call_id = '{call_id}'")[0]["org"])
