"""The SQL page in a real browser, over real processes."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
from playwright.sync_api import Page, expect

from dashboard.words import THIN
from tests.e2e.browsing import Site, Watched, settled

pytestmark = pytest.mark.browser


def run(page: Page, query: str) -> None:
    """Type a query and run it by keyboard."""
    editor = page.get_by_role("textbox", name="Query")
    editor.fill(query)
    editor.press("Control+Enter")


def test_a_query_is_run_by_keyboard_and_stays_in_the_address(tab: Watched, site: Site) -> None:
    """Back walks through the queries; a link and a reload run theirs."""
    page = tab.page
    page.goto(site.url("sql"))
    run(page, "SELECT 6 * 7 AS answer")
    expect(page.get_by_text("1 row · 1 column")).to_be_visible()
    expect(page).to_have_url(re.compile(r"sql=SELECT"))
    run(page, "SELECT unnest([1, 2, 3]) AS n")
    expect(page.get_by_text("3 rows · 1 column")).to_be_visible()

    page.go_back()
    expect(page.get_by_text("1 row · 1 column")).to_be_visible()
    expect(page.get_by_role("textbox", name="Query")).to_have_value("SELECT 6 * 7 AS answer")
    page.reload()
    expect(page.get_by_text("1 row · 1 column")).to_be_visible()


def test_a_query_and_its_answer_are_there_for_who_comes_back_by_the_menu(tab: Watched, site: Site) -> None:
    """Whose link names no query; the address does again, so that a reload and a copied link show the same."""
    page = tab.page
    page.goto(site.url("sql"))
    run(page, "SELECT 6 * 7 AS answer")
    told = page.get_by_text("1 row · 1 column")
    expect(told).to_be_visible()
    asked = told.inner_text()
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    page.get_by_role("link", name="SQL").click()

    expect(page.get_by_role("textbox", name="Query")).to_have_value("SELECT 6 * 7 AS answer")
    expect(told).to_have_text(asked)
    expect(page).to_have_url(re.compile(r"sql=SELECT"))


def test_an_answer_names_the_zone_of_each_of_its_times(tab: Watched, site: Site) -> None:
    """It was asked by the viewer's clock, and its rows have UTC."""
    page = tab.page
    page.goto(site.url("sql", sql="SELECT 1 AS one"))

    expect(page.get_by_text(re.compile("asked .* Europe/Berlin · times in the answer are UTC"))).to_be_visible()


WRONG = {
    "SELECT * FROM read_csv('/etc/passwd')": "read_csv",
    "SELECT nothing FROM calls": "nothing",
    "DELETE FROM calls": "SELECT",
    "SELEC 1": "SELEC",
    "SELECT 1; SELECT 2": "one",
    "SELECT $missing": "missing",
}
"""A query, and a word of the sentence that says what is wrong with it."""


def test_an_error_is_a_sentence(tab: Watched, site: Site) -> None:
    """What was refused or wrong, in words, without a traceback."""
    page = tab.page
    page.goto(site.url("sql"))
    for query, told in WRONG.items():
        run(page, query)
        expect(page.get_by_role("alert")).to_contain_text(told)
        assert "Traceback" not in page.inner_text("body")


def test_a_result_is_downloaded_as_csv_and_parquet(tab: Watched, site: Site, tmp_path: Path) -> None:
    """The files hold what SQL gives, and a spreadsheet takes no cell of the CSV for a formula."""
    query = "SELECT provider, count(*) AS calls, '=1+1' AS formula FROM calls GROUP BY ALL ORDER BY provider"
    page = tab.page
    page.goto(site.url("sql", sql=query))
    expect(page.locator(".schema summary").first).to_be_visible()
    settled(page)
    for name in ("CSV", "Parquet"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=name).click()
        waiting.value.save_as(tmp_path / name)
    found = [(row["provider"], row["calls"]) for row in site.sql(query)]
    parquet = pyarrow.parquet.read_table(tmp_path / "Parquet").to_pylist()
    csv = pyarrow.csv.read_csv(tmp_path / "CSV").to_pylist()

    assert [(row["provider"], row["calls"]) for row in parquet] == found
    assert [(row["provider"], row["calls"]) for row in csv] == found
    assert {row["formula"] for row in parquet} == {"=1+1"}
    assert {row["formula"] for row in csv} == {"'=1+1"}


def test_the_schema_stands_beside_the_editor(tab: Watched, site: Site) -> None:
    """Every public table unfolds to its columns, with types and what they mean."""
    page = tab.page
    page.goto(site.url("sql"))
    tables = {row["table"] for row in site.sql('SELECT DISTINCT "table" FROM schema_columns')}
    expect(page.locator(".schema summary")).to_have_count(len(tables))
    assert set(page.locator(".schema summary").all_inner_texts()) == tables

    page.locator(".schema summary", has_text=re.compile("^calls$")).click()

    expect(
        page.get_by_text("How long the call took").or_(page.get_by_text("Whom the call reached")).first
    ).to_be_visible()


def test_saved_and_recent_queries_are_offered(tab: Watched, site: Site) -> None:
    """A file in the data folder's `queries` opens by the title of its first line; so does what was asked before."""
    folder = site.running.data / "queries"
    folder.mkdir(exist_ok=True)
    (folder / "mine.sql").write_text("-- How many calls there are\nSELECT count(*) AS calls FROM calls")
    page = tab.page
    page.goto(site.url("sql", sql="SELECT 1 AS before"))
    expect(page.get_by_text("1 row · 1 column")).to_be_visible()
    page.get_by_role("combobox", name="Open a query").click()
    expect(page.get_by_role("option", name="recent: SELECT 1 AS before")).to_be_visible()

    page.get_by_role("option", name="How many calls there are").click()

    expect(page.get_by_role("textbox", name="Query")).to_have_value(re.compile("count"))
    expect(page).to_have_url(re.compile("How"))


def test_a_cut_off_answer_says_so(tab: Watched, site: Site) -> None:
    """Where the rows end before the answer does, the page names how many there are."""
    page = tab.page
    page.goto(site.url("sql", sql="SELECT range AS n FROM range(1500000)"))

    expect(page.get_by_text(f"The answer was cut off after 1{THIN}000{THIN}000 rows")).to_be_visible()
