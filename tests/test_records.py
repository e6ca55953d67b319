"""The records that carry journalled things through Kafka."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.errors import RecordMalformed
from calls.journal_row import Damaged
from calls.model import CallKey, Delivery, Notice, Trust, Verdict
from calls.provider import Naming
from calls.records import (
    GIVE_UP_RECORDS,
    Chunk,
    Joiner,
    Outgoing,
    Topic,
    call_key,
    of_damaged,
    of_delivery,
    of_notice,
    read_delivery,
    read_notice,
)

LIMIT = 1 << 20
NAMING = Naming("post_call", "acme", "c-1")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def delivery(body: bytes = b'{"a": 1}', **changes: object) -> Delivery:
    fields: dict[str, object] = {
        "source": "acme-synthflow", "provider": "synthflow", "org": "acme", "body": body,
        "headers": {"content-type": "application/json", "user-agent": "Größe/1"},
        "received_at": 1_795_000_000_123_456, "trust": Trust.C, "journal_id": "j-1", "position": 7,
    }  # fmt: skip
    return Delivery(**{**fields, **changes})  # type: ignore[arg-type]


def notice(**changes: object) -> Notice:
    fields: dict[str, object] = {
        "source": "synthflow", "provider": "synthflow", "verdict": Verdict.REFUSED, "reason": "signature_wrong",
        "detail": "Größe", "id": None, "bytes": 9, "count": 3, "received_at": 5, "journal_id": "j-1", "position": 8,
    }  # fmt: skip
    return Notice(**{**fields, **changes})  # type: ignore[arg-type]


def chunks(whole: Delivery, limit: int) -> list[Chunk]:
    found = [read_delivery(record.headers, record.value) for record in of_delivery(whole, NAMING, bytes_max=limit)]
    assert all(isinstance(one, Chunk) for one in found)
    return found  # type: ignore[return-value]


@given(
    body=st.binary(max_size=200),
    org=TEXT,
    headers=st.dictionaries(TEXT, TEXT, max_size=4),
    trust=st.sampled_from(Trust),
)
def test_what_is_read_is_what_was_journalled(body: bytes, org: str, headers: dict[str, str], trust: Trust) -> None:
    """Every field of a delivery comes back from its record, whatever it holds."""
    sent = delivery(body, org=org, headers=headers, trust=trust)
    (record,) = of_delivery(sent, None, bytes_max=LIMIT)
    assert read_delivery(record.headers, record.value) == sent


def test_a_record_says_in_its_headers_what_any_consumer_wants_to_know() -> None:
    """The value is the raw body; the headers have the names and texts that the documentation promises."""
    sent = delivery()
    assert of_delivery(sent, NAMING, bytes_max=LIMIT) == [
        Outgoing(
            Topic.DELIVERIES, b"synthflow:acme:c-1", b'{"a": 1}',
            [
                ("source", b"acme-synthflow"), ("provider", b"synthflow"), ("org", b"acme"), ("event", b"post_call"),
                ("received_at", b"1795000000123456"), ("trust", b"C"), ("journal_id", b"j-1"), ("position", b"7"),
                ("id", sent.id.encode()),
                ("http", '{"content-type":"application/json","user-agent":"Größe/1"}'.encode()),
            ],
            1_795_000_000_123_456,
        )
    ]  # fmt: skip


def test_without_a_call_the_key_is_the_id() -> None:
    """What belongs to no call, or could not be read, is spread over the partitions by its id."""
    sent = delivery()
    for naming in (None, Naming("agent.created", "", None)):
        (record,) = of_delivery(sent, naming, bytes_max=LIMIT)
        assert record.key == sent.id.encode()


@given(st.lists(st.tuples(st.text("a:%3A", max_size=5), st.text("a:%3A", max_size=5)), min_size=2, max_size=2))
def test_two_calls_never_share_a_key(calls: list[tuple[str, str]]) -> None:
    """Compaction keeps one record a key, so a colon in an org or id must not make two calls one."""
    first, second = (CallKey("synthflow", org, call_id) for org, call_id in calls)
    assert (call_key(first) == call_key(second)) == (first == second)


@given(size=st.integers(0, 20_000), limit=st.integers(2_600, 9_000))
def test_no_record_is_over_the_limit_and_its_chunks_are_the_body(size: int, limit: int) -> None:
    """Key, headers and value together fit; the pieces in order are the body."""
    sent = delivery(Random(size).randbytes(size))
    records = of_delivery(sent, NAMING, bytes_max=limit)
    for record in records:
        headers = sum(len(name) + len(value) for name, value in record.headers)
        assert len(record.key) + len(record.value) + headers + 100 <= limit
        assert record.key == records[0].key
    assert b"".join(record.value for record in records) == sent.body


def test_chunks_are_put_together_again() -> None:
    """The last chunk gives the whole delivery, the ones before it nothing."""
    sent = delivery(Random(1).randbytes(100_000))
    joiner = Joiner()
    joined = [joiner.add(chunk, offset) for offset, chunk in enumerate(chunks(sent, 9_000))]
    assert len(joined) > 10
    assert joined == [None] * (len(joined) - 1) + [sent]
    assert joiner.holds_from is None


def test_a_relay_that_was_interrupted_begins_its_chunks_anew() -> None:
    """Half a delivery, cut for one limit, followed by all of it cut for another, is that delivery once."""
    sent = delivery(Random(1).randbytes(50_000))
    joiner = Joiner()
    given = [*chunks(sent, 9_000)[:4], *chunks(sent, 7_000)]
    assert [whole for offset, chunk in enumerate(given) if (whole := joiner.add(chunk, offset))] == [sent]


def test_chunks_of_two_deliveries_may_alternate() -> None:
    """Two journals publish into one partition, each in its own order."""
    first, second = delivery(b"x" * 30_000), delivery(b"y" * 30_000, journal_id="j-2")
    joiner = Joiner()
    given = [chunk for pair in zip(chunks(first, 9_000), chunks(second, 9_000), strict=True) for chunk in pair]
    assert [whole for offset, chunk in enumerate(given) if (whole := joiner.add(chunk, offset))] == [first, second]


def test_a_repeated_chunk_changes_nothing() -> None:
    """A lost acknowledgement can repeat any one."""
    sent = delivery(b"x" * 30_000)
    cut = chunks(sent, 9_000)
    joiner = Joiner()
    given = [cut[0], cut[1], cut[1], *cut[2:]]
    assert [whole for offset, chunk in enumerate(given) if (whole := joiner.add(chunk, offset))] == [sent]


def test_an_unfinished_delivery_holds_the_position_before_its_first_chunk() -> None:
    """A consumer that crashes must read the chunks again, so what it stored must not lie behind them."""
    joiner = Joiner()
    cut = chunks(delivery(b"x" * 30_000), 9_000)
    joiner.add(cut[0], 41)
    joiner.add(cut[1], 43)
    assert joiner.holds_from == 41


def test_a_chunk_without_those_before_it_is_refused() -> None:
    """The beginning of the topic is gone, or somebody else writes to it: named, and not waited for."""
    cut = chunks(delivery(b"x" * 30_000), 9_000)
    joiner = Joiner()
    with pytest.raises(RecordMalformed, match="came without those before it"):
        joiner.add(cut[1], 0)
    joiner.add(cut[0], 1)
    with pytest.raises(RecordMalformed, match="Chunk 3 of 4"):
        joiner.add(cut[2], 2)
    assert joiner.holds_from is None


def test_chunks_that_are_not_the_body_are_refused() -> None:
    """The whole must have the id that every chunk bears."""
    cut = chunks(delivery(b"x" * 30_000), 9_000)
    joiner = Joiner()
    for chunk in cut[:-1]:
        joiner.add(chunk, chunk.number)
    with pytest.raises(RecordMalformed, match="not the one whose id"):
        joiner.add(Chunk(cut[-1].of, cut[-1].id, cut[-1].number, cut[-1].count, b"y"), 9)


def test_what_is_never_finished_is_given_up_and_named() -> None:
    """A journal that is gone for ever must not hold the consumer's position for ever."""
    cut = chunks(delivery(b"x" * 30_000), 9_000)
    joiner = Joiner()
    joiner.add(cut[0], 5)
    assert joiner.give_up(5 + GIVE_UP_RECORDS) == []
    assert joiner.give_up(6 + GIVE_UP_RECORDS) == [cut[0]]
    assert joiner.holds_from is None


def test_headers_that_leave_no_room_are_an_error() -> None:
    """A body cannot be cut into pieces of nothing."""
    with pytest.raises(ValueError, match="leave no room"):
        of_delivery(delivery(b"x" * 9_000, headers={"x": "y" * 8_000}), None, bytes_max=9_000)


@pytest.mark.parametrize(
    "missing", ["source", "provider", "org", "received_at", "trust", "journal_id", "position", "id", "http"]
)
def test_a_record_that_is_not_ours_is_named(missing: str) -> None:
    """Someone else's record on our topic says which header it lacks."""
    (record,) = of_delivery(delivery(), None, bytes_max=LIMIT)
    with pytest.raises(RecordMalformed, match=f"'{missing}'"):
        read_delivery([header for header in record.headers if header[0] != missing], record.value)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("received_at", b"yesterday"), ("received_at", b"-1"), ("position", b"0"), ("trust", b"Z"), ("http", b"[]"),
        ("http", b"{"), ("source", b"\xff"), ("source", None), ("received_at", None), ("id", b"0" * 64),
        ("chunk", b""), ("chunk", b"1"), ("chunk", b"2/1"), ("chunk", b"0/1"), ("chunk", b"1/2/3"), ("chunk", b"a/b"),
        ("chunk", b"1/999999999"), ("trust", None), ("http", None), ("journal_id", None), ("position", None),
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_named(header: str, value: bytes | None) -> None:
    """Whatever stands in a header, reading it raises one error."""
    (record,) = of_delivery(delivery(), None, bytes_max=LIMIT)
    with pytest.raises(RecordMalformed):
        read_delivery([*record.headers, (header, value)], record.value)


def test_a_record_without_a_value_is_refused() -> None:
    """A tombstone on our topic is not ours."""
    (record,) = of_delivery(delivery(), None, bytes_max=LIMIT)
    with pytest.raises(RecordMalformed, match="no value"):
        read_delivery(record.headers, None)


def test_unknown_headers_are_ignored() -> None:
    """A later version may add some, and so may a proxy between."""
    (record,) = of_delivery(delivery(), NAMING, bytes_max=LIMIT)
    assert read_delivery([("traceparent", b"00"), *record.headers, ("new", None)], record.value) == delivery()


def test_a_notice_travels_as_json() -> None:
    """Every field of a notice comes back; its key is its source."""
    record = of_notice(notice())
    assert (record.topic, record.key) == (Topic.NOTICES, b"synthflow")
    assert read_notice(record.headers, record.value) == notice()


def test_a_damaged_row_travels_with_the_journal_it_is_from() -> None:
    """So that the store can say which row of which journal was lost."""
    record = of_damaged(Damaged(9, "The row is missing."), "j-1", at=5)
    assert read_notice(record.headers, record.value) == Damaged(9, "The row is missing.", "j-1")


@pytest.mark.parametrize(
    ("headers", "value"),
    [([], b"{}"), ([("kind", b"other")], b"{}"), ([("kind", b"notice")], b"{}"), ([("kind", b"notice")], None),
     ([("kind", b"damaged")], b"\xff"), ([("kind", None)], b"")],
)  # fmt: skip
def test_a_notice_that_is_not_ours_is_named(headers: list[tuple[str, bytes | None]], value: bytes | None) -> None:
    """Whatever stands on the topic, reading it raises one error."""
    with pytest.raises(RecordMalformed):
        read_notice(headers, value)
