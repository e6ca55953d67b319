"""Who was on the other end of a call: one person whatever the spelling, nobody where the number is withheld."""

from __future__ import annotations

import duckdb
import pytest

from analytics.contact import CONTACT, OPTED_OUT
from calls.model import Rules
from streams.fold import fold
from tests.storing import event_of


def contact_of(number: str | None) -> object:
    return duckdb.execute(f"SELECT {CONTACT} FROM (SELECT CAST(? AS VARCHAR) AS number)", [number]).fetchall()[0][0]


def opted_out(disposition: str | None, *tags: str) -> object:
    row = "SELECT CAST(? AS VARCHAR) AS disposition, CAST(? AS VARCHAR[]) AS tags"
    return duckdb.execute(f"SELECT {OPTED_OUT} FROM ({row})", [disposition, list(tags) or None]).fetchall()[0][0]


@pytest.mark.parametrize("number", ["+4917099012", "0049 170 99012", "+49 (170) 990-12", "49.170/99012", "4917099012"])
def test_a_number_is_one_person_however_it_is_spelled(number: str) -> None:
    """Platforms send the same number with and without signs, and as a JSON number."""
    assert contact_of(number) == "4917099012"


def test_a_spelling_is_the_same_for_a_contact_as_for_a_test_number() -> None:
    """Who is left out as a test is who is counted as one person."""
    rules = Rules(test_numbers=("+49 170 99012",))
    for number in ("0049 170 99012", "4917099012", "+49 (170) 990-12"):
        assert fold([event_of(1, "c", facts={"caller_phone": number})], rules)["excluded"] == "test"


@pytest.mark.parametrize(
    "number",
    [
        None, "", "anonymous", "Anonymous", "Restricted", "private", "unknown", "withheld", "No Caller ID",
        "[redacted]", "sip:anonymous@anonymous.invalid", "+266696687", "7378742833", "+86282452253", "+49170*****12",
        "+1XXXXXX1234",
        "+1xxx5550100", "\N{BULLET}\N{BULLET}\N{BULLET} 12", "00", "+1", "-",
    ],
)  # fmt: skip
def test_whoever_withholds_a_number_is_nobody_in_particular(number: str | None) -> None:
    """All anonymous calls together are not one person who calls very often."""
    assert contact_of(number) is None


def test_an_address_is_a_person_too() -> None:
    """Calls over the internet have no number."""
    assert contact_of(" sip:Extension12@Example.com ") == "sip:extension12@example.com"


@pytest.mark.parametrize(
    "said",
    [
        "DNC", "dnc_requested", "Do not call", "do-not-contact", "doNotCall", "opt out", "user_opted_out", "opt-out",
        "Opting out", "unsubscribe_request", "Unsubscribed",
    ],
)  # fmt: skip
def test_a_wish_for_no_more_calls_is_read_however_it_is_written(said: str) -> None:
    """Dispositions and tags are typed by people and by models."""
    assert opted_out(said) is True
    assert opted_out(None, "qualified", said) is True


@pytest.mark.parametrize(
    "said", [None, "interested", "not opted out", "no_opt_out", "never unsubscribed", "adopt outline", "callback"]
)
def test_what_is_no_such_wish_is_none(said: str | None) -> None:
    """To deny it is not to say it."""
    assert opted_out(said) is False


def test_a_denial_reaches_no_further_than_its_own_tag() -> None:
    """What stands beside each other in a list is not a sentence."""
    assert opted_out("not", "dnc") is True
