"""`calltally verify`, `rebuild`, `dead` and `quarantine` over real files."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

from analytics.store import Position
from calls.journal_file import set_first_position
from calls.model import delivery_id
from calls.provider import named
from calls.signing import sign
from ingest.quarantine import Held, Quarantine
from tests import command
from tests.command import rows, run, told
from tests.journalling import edit
from tests.storing import new_calls

BROKEN = b'\x1b[31m{"event": \xff'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mended")
    command.stock(made, 20, more=[command.delivery("aisync", BROKEN, command.NOW, {"user-agent": "sender/1"})])
    return made


def test_verify_finds_nothing_where_all_is_well(folder: Path) -> None:
    """Exit code 0, no finding, and words on what was compared."""
    done = run(folder, "verify", "--format", "json")

    assert rows(done) == []
    assert "Everything agrees" in done.stderr.decode()


def test_verify_counts_what_is_not_applied_yet_and_does_not_blame_it(tmp_path: Path) -> None:
    """A record beyond the store's position is lag."""
    command.stock(tmp_path, 4)
    command.journal(tmp_path, command.deliveries(1, seed=5)[:1])
    done = run(tmp_path, "verify")

    assert told(done) == ""
    assert "1 record not applied yet" in done.stderr.decode()


def test_verify_finds_what_the_store_lacks(tmp_path: Path) -> None:
    """A delivery that counts as applied, and is not there."""
    command.stock(tmp_path, 4)
    _change_store(tmp_path, "DELETE FROM kept.deliveries WHERE position = 2")

    assert "journalled records are not in the store as they were received (position), for example 2" in told(
        run(tmp_path, "verify"), 1
    )


def test_verify_finds_a_wrong_roll_up(tmp_path: Path) -> None:
    """A number that its recomputation does not give."""
    command.stock(tmp_path, 4)
    _change_store(tmp_path, "UPDATE kept.rollup_calls SET calls = calls + 1")

    assert "rollup_calls" in told(run(tmp_path, "verify"), 1)


def test_verify_finds_a_damaged_record_of_the_journal(tmp_path: Path) -> None:
    """Every digest is checked."""
    command.stock(tmp_path, 4)
    edit(tmp_path / "data" / "journal.sqlite", "UPDATE rows SET body = '{}' WHERE position = 3")
    said = told(run(tmp_path, "verify"), 1)

    assert "1 records of the journal are damaged (position), for example 3" in said


def test_verify_says_what_the_journal_does_not_go_back_to(tmp_path: Path) -> None:
    """Rows that were moved away are no damage, and not compared."""
    command.stock(tmp_path, 4)
    connection = sqlite3.connect(tmp_path / "data" / "journal.sqlite", isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM rows WHERE position < 3")
    set_first_position(connection, 3)
    connection.execute("COMMIT")
    connection.close()
    done = run(tmp_path, "verify")

    assert told(done) == ""
    assert "begins at position 3; what stood before is not in it and was not compared" in done.stderr.decode()


def test_verify_of_another_journal_says_so(tmp_path: Path) -> None:
    """The journal was replaced under the store."""
    command.stock(tmp_path, 4)
    for left in (tmp_path / "data").glob("journal.sqlite*"):
        left.unlink()
    command.journal(tmp_path, command.deliveries(2))

    assert "was filled from journal" in told(run(tmp_path, "verify"), 1)


def test_verify_of_a_store_that_kafka_fills_needs_no_journal(tmp_path: Path) -> None:
    """The journal is on another machine: everything else is checked, and what was not is said."""
    command.settings_file(tmp_path)
    (tmp_path / "data").mkdir()
    store = command.store_of(tmp_path)
    store.apply(msgspec.structs.replace(new_calls([1, 2]), positions=[Position("kafka", "topic/0", 2)]))
    store.close()
    done = run(tmp_path, "verify")

    assert told(done) == ""
    assert "The journal was not compared with the store: there is none at" in done.stderr.decode()
    assert "records of the journal read" not in done.stderr.decode()
    _change_store(tmp_path, "UPDATE kept.calls SET event_count = 9")
    assert "2 calls disagree with their events" in told(run(tmp_path, "verify"), 1)


def test_verify_misses_the_journal_that_a_store_was_filled_from(tmp_path: Path) -> None:
    """On one machine a journal that is gone is no reason for calm."""
    command.stock(tmp_path, 4)
    for left in (tmp_path / "data").glob("journal.sqlite*"):
        left.unlink()

    assert "The store was filled from a journal, but there is none" in told(run(tmp_path, "verify"), 1)


def test_verify_without_journal_and_store_is_a_sentence(tmp_path: Path) -> None:
    """There is nothing to prove."""
    done = run(tmp_path, "verify")

    assert told(done, 1) == ""
    assert "There is no store at" in done.stderr.decode()


def test_a_rebuild_makes_the_same_store(tmp_path: Path) -> None:
    """After the store was deleted."""
    command.stock(tmp_path, 12)
    (tmp_path / "data" / "store.duckdb").unlink()
    told(run(tmp_path, "rebuild"))

    assert rows(run(tmp_path, "sql", "SELECT count(*) AS n FROM calls", "--format", "json")) == [{"n": 12}]
    assert rows(run(tmp_path, "verify", "--format", "json")) == []


def test_a_rebuild_without_a_journal_is_a_sentence(tmp_path: Path) -> None:
    """Exit code 1."""
    done = run(tmp_path, "rebuild")

    assert told(done, 1) == ""
    assert "There is no journal" in done.stderr.decode()


def test_a_rebuild_refuses_where_the_journal_has_lost_its_beginning(tmp_path: Path) -> None:
    """The calls of that time stand only in the present store, which stays as it is."""
    command.stock(tmp_path, 4)
    journal = tmp_path / "data" / "journal.sqlite"
    edit(journal, "DELETE FROM rows WHERE position <= 3")
    edit(journal, "DELETE FROM commits WHERE last <= 3")
    before = (tmp_path / "data" / "store.duckdb").read_bytes()
    done = run(tmp_path, "rebuild")

    assert told(done, 1) == ""
    assert "begins at position 4" in done.stderr.decode()
    assert "Nothing was moved" in done.stderr.decode()
    assert (tmp_path / "data" / "store.duckdb").read_bytes() == before


def test_a_rebuild_keeps_the_store_that_knows_what_a_damaged_record_said(tmp_path: Path) -> None:
    """Put back, it is as it was; one that knows no more than the new one is not kept."""
    command.stock(tmp_path, 4)
    edit(tmp_path / "data" / "journal.sqlite", "DELETE FROM rows WHERE position = 2")
    done = run(tmp_path, "rebuild")
    (kept,) = (tmp_path / "data").glob("store.duckdb.store_mismatch-*Z")

    assert told(done, 1) == ""
    assert str(kept.name) in done.stderr.decode()
    assert "journal_damaged 1" in done.stderr.decode()
    told(run(tmp_path, "rebuild"), 1)
    assert list((tmp_path / "data").glob("store.duckdb.store_mismatch-*Z")) == [kept]
    kept.replace(tmp_path / "data" / "store.duckdb")
    assert rows(run(tmp_path, "dead", "list", "--format", "json")) == []


def test_a_store_that_another_process_has_open_is_a_sentence(tmp_path: Path) -> None:
    """For whoever needs the file; a rebuild says what to stop, and not that it is the worker: any program may be."""
    command.stock(tmp_path, 2)
    with command.owned(tmp_path):
        for words in (["rebuild"], ["verify"], ["sql", "FROM calls"], ["snapshot", "-o", "x.duckdb"], ["export"]):
            done = run(tmp_path, *words)
            assert told(done, 1) == ""
            assert "is in use by process" in done.stderr.decode()
            assert words != ["rebuild"] or "stop it first" in done.stderr.decode()
            assert "It is the worker" not in done.stderr.decode()
    assert not (tmp_path / "x.duckdb").exists()


def test_dead_letters_are_listed_with_their_reason(folder: Path) -> None:
    """The newest first."""
    (found,) = rows(run(folder, "dead", "list", "--format", "json"))

    assert (found["source"], found["reason"]) == ("aisync", "not_utf8")
    assert rows(run(folder, "dead", "list", "--source", "synthflow", "--format", "json")) == []


def test_a_source_that_has_none_is_told_which_have(folder: Path) -> None:
    """The name may be mistyped."""
    done = run(folder, "dead", "list", "--source", "aisink")
    assert "None of 'aisink'. There are some of: aisync." in done.stderr.decode()

    _hold(folder, b"{}", signed=False)
    done = run(folder, "quarantine", "list", "--source", "aisink")
    assert "None of 'aisink'. There are some of: aisync." in done.stderr.decode()


def test_a_dead_letter_is_shown_without_acting_on_the_terminal(folder: Path) -> None:
    """Reason, kept headers, and the body with everything unprintable written out; --body gives the bytes."""
    (letter,) = rows(run(folder, "dead", "list", "--format", "json"))
    at = str(letter["position"])
    shown = told(run(folder, "dead", "show", at))

    assert "not_utf8" in shown
    assert "user-agent: sender/1" in shown
    assert r'\x1b[31m{"event": \xff' in shown
    assert "\x1b" not in shown
    assert run(folder, "dead", "show", at, "--body").stdout == BROKEN
    done = run(folder, "dead", "show", "99999")
    assert "does not reach" in done.stderr.decode()
    assert done.returncode == 1


def test_retrying_dead_letters_tells_the_plan_first(folder: Path) -> None:
    """What the same code could not read before, it cannot read now; nothing is changed."""
    done = run(folder, "dead", "retry", "--yes")

    assert told(done).split()[-4:] == ["aisync", "not_utf8", "1", "0"]
    assert "None of them would be understood now" in done.stderr.decode()


def test_a_dead_letter_that_can_be_read_now_becomes_a_call(tmp_path: Path) -> None:
    """A record that was damaged when it was applied, and is whole again since the backup was put back."""
    command.stock(tmp_path, 4)
    journal = tmp_path / "data" / "journal.sqlite"
    whole = sqlite3.connect(journal).execute("SELECT body FROM rows WHERE position = 1").fetchone()[0]
    edit(journal, "UPDATE rows SET body = '{}' WHERE position = 1")
    told(run(tmp_path, "rebuild"), 1)
    calls = _calls(tmp_path)
    edit(journal, "UPDATE rows SET body = ? WHERE position = 1", whole)

    plan = run(tmp_path, "dead", "retry")
    assert "1 delivery would be understood now" in plan.stderr.decode()
    assert _calls(tmp_path) == calls
    told(run(tmp_path, "dead", "retry", "--yes"))
    assert _calls(tmp_path) == 4
    assert rows(run(tmp_path, "dead", "list", "--format", "json")) == []


def test_the_quarantine_is_listed_and_its_retry_planned(tmp_path: Path) -> None:
    """What would pass with the secrets as they are now, and what not; --yes leaves it to ingest."""
    command.settings_file(tmp_path)
    _hold(tmp_path, b'{"event":"call.ended","data":{"call_id":"1"}}', signed=True)
    _hold(tmp_path, b'{"event":"call.ended","data":{"call_id":"2"}}', signed=False)

    listed = rows(run(tmp_path, "quarantine", "list", "--format", "json"))
    assert [one["reason"] for one in listed] == ["signature_wrong", "signature_wrong"]
    plan = run(tmp_path, "quarantine", "retry")
    assert told(plan).split()[-5:] == ["aisync", "2", "1", "signature_missing", "1"]
    assert "1 delivery would pass" in plan.stderr.decode()
    assert "when it next starts" in run(tmp_path, "quarantine", "retry", "--yes").stderr.decode()


def test_the_plan_of_a_retry_is_one_table(tmp_path: Path) -> None:
    """Every source a line, under one heading."""
    command.settings_file(tmp_path)
    for source in ("aisync", "callsync"):
        _hold(tmp_path, b"{}", signed=True, source=source)

    heading, *lines = told(run(tmp_path, "quarantine", "retry")).splitlines()
    assert heading.split() == ["source", "held", "would_pass", "still_refused"]
    assert sorted(line.split()[:3] for line in lines if line) == [["aisync", "1", "1"], ["callsync", "1", "1"]]


def _calls(folder: Path) -> object:
    return rows(run(folder, "sql", "SELECT count(*) AS n FROM calls", "--format", "json"))[0]["n"]


def _change_store(folder: Path, statement: str) -> None:
    """As nobody but a bug would."""
    store = command.store_of(folder)
    with store.cursor() as cursor:
        cursor.execute(statement)
    store.close()


def _hold(folder: Path, body: bytes, *, signed: bool, source: str = "aisync") -> None:
    headers = [(b"content-type", b"application/json")]
    if signed:
        made = sign(named(source).scheme, command.SECRETS[source], body, now_s=int(time.time()))
        headers += [(name.encode(), value.encode()) for name, value in made.items()]
    quarantine = Quarantine(folder / "data" / "quarantine.sqlite")
    quarantine.offer(
        Held(
            source=source,
            id=delivery_id(source, body),
            provider=source,
            reason="signature_wrong",
            detail="Another secret.",
            headers=headers,
            body=body,
            received_at=command.NOW,
        )
    )
    quarantine.close()


def test_the_output_of_dead_show_is_json_on_request(folder: Path) -> None:
    """One array with one object."""
    (letter,) = rows(run(folder, "dead", "list", "--format", "json"))
    (found,) = json.loads(told(run(folder, "dead", "show", str(letter["position"]), "--format", "json")))

    assert found["headers"] == {"content-type": "application/json", "user-agent": "sender/1"}
