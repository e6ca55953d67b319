"""`calltally doctor`: each kind of trouble is found, named and given a remedy."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from analytics.store import Batch
from calls.model import DeadLetter, Delivery, Trust
from tests import command
from tests.command import rows, run, told
from tests.journalling import edit
from tools.ports import free_ports


def test_a_healthy_folder_needs_nothing(tmp_path: Path) -> None:
    """Exit code 0; every source's secret signs and verifies; each finding is one object of the array."""
    command.stock(tmp_path, 8)
    command.settings_file(tmp_path, ports=free_ports(3))
    done = run(tmp_path, "doctor", "--format", "json")
    found = rows(done)

    assert {one["level"] for one in found} <= {"ok", "note"}
    assert sum("verifies here" in str(one["cause"]) for one in found) == len(command.SECRETS)
    assert {"settings", "clock", "data folder", "journal", "ports", "secrets", "sources", "store", "versions"} == {
        one["check"] for one in found
    }
    assert "Nothing is wrong" in done.stderr.decode()


def test_settings_that_cannot_be_read_are_a_finding(tmp_path: Path) -> None:
    """Each wrong line, exit code 1 and no traceback."""
    (tmp_path / "calltally.toml").write_text("ingest_prt = 1\nsql_port = 99999999\n")
    said = [str(one["cause"]) for one in rows(run(tmp_path, "doctor", "--format", "json"), 1)]

    assert any("Did you mean 'ingest_port'" in one for one in said)
    assert any("sql_port" in one for one in said)


def test_weak_and_shared_secrets_are_found_and_never_shown(tmp_path: Path) -> None:
    """Short ones, repeated characters, one secret for two sources, a file that others can read."""
    text = '[sources.aisync]\nsecrets = ["tooshort"]\n[sources.callsync]\nsecrets = ["aaaaaaaaaaaaaaaaa", "tooshort"]\n'
    (tmp_path / "calltally.toml").write_text(text)
    (tmp_path / "calltally.toml").chmod(0o644)
    done = run(tmp_path, "doctor", "--format", "json")
    said = [str(one["cause"]) for one in rows(done, 1) if one["check"] == "secrets" and one["level"] == "warning"]

    for part in ("share a secret", "has only 8 characters", "only 1 different characters", "Other accounts"):
        assert any(part in one for one in said), part
    assert b"tooshort" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "readable"),
    [
        ("sql_timeout_s = 5", False),
        ('allow_unsigned = ["callsync"]', False),
        ('sql_token = "k2Vx9fQe7LmT4cRz"', True),
        ('kafka_password = "k2Vx9fQe7LmT4cRz"', True),
        ('[sources.synthflow]\ninbound_token = "k2Vx9fQe7LmT4cRz"', True),
        ('[sources.callsync]\nsecrets = ["k2Vx9fQe7LmT4cRz"]', True),
    ],
)
def test_a_settings_file_is_to_be_hidden_only_where_it_holds_a_secret(
    tmp_path: Path, line: str, readable: bool
) -> None:
    """Secrets of the environment are in no file; every secret of the file counts, not a source's alone."""
    (tmp_path / "calltally.toml").write_text(line)
    (tmp_path / "calltally.toml").chmod(0o644)
    done = run(tmp_path, "doctor", "--format", "json", environ={"CALLTALLY_SECRET_SYNTHFLOW": "Vq8rZ2mK0pTn4xWc"})
    warnings = _of(json.loads(done.stdout), "secrets", "warning")

    assert any("can read the secrets in calltally.toml" in str(one["cause"]) for one in warnings) is readable


def test_a_busy_port_is_found(tmp_path: Path) -> None:
    """Something else answers there, or merely holds it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        command.settings_file(tmp_path, ports=[port, *free_ports(2)])
        found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "ports", "wrong")

    assert f"port {port}" in str(found[0]["cause"])
    assert "ingest_port" in str(found[0]["fix"])


def test_a_folder_without_rights_is_found(tmp_path: Path) -> None:
    """The data folder takes no writes; root may write everywhere but into the kernel's own folders."""
    (tmp_path / "data").mkdir(mode=0o500)
    (tmp_path / "calltally.toml").write_text('data_dir = "/proc/self"' if os.geteuid() == 0 else "")
    found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "data folder", "wrong")

    assert "takes no writes" in str(found[0]["cause"])


def test_a_data_folder_that_is_a_file_is_found(tmp_path: Path) -> None:
    """And says what to name instead."""
    (tmp_path / "data").write_text("")
    found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "data folder", "wrong")

    assert "is no folder" in str(found[0]["cause"])


def test_a_clock_that_is_ahead_of_the_senders_is_found(tmp_path: Path) -> None:
    """The median of what they signed against when it was received."""
    signed_s = command.NOW // 1_000_000 - 600
    late = [
        command.delivery("inboundflow", b'{"n": %d}' % number, command.NOW, {"x-inboundflow-timestamp": str(signed_s)})
        for number in range(5)
    ]
    command.settings_file(tmp_path)
    command.journal(tmp_path, late)
    found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "clock", "warning")

    assert "600 s ahead" in str(found[0]["cause"])


def test_a_clock_that_was_set_back_is_found(tmp_path: Path) -> None:
    """The journal holds what is yet to come."""
    command.settings_file(tmp_path)
    command.journal(tmp_path, [command.delivery("aisync", b"{}", 4_000_000_000_000_000)])
    found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "clock", "wrong")

    assert "set back" in str(found[0]["cause"])


def test_refusals_since_the_last_delivery_come_with_their_diagnosis(tmp_path: Path) -> None:
    """The sentence that the door wrote, and what to do."""
    command.settings_file(tmp_path)
    notices = [command.refusal("callsync", command.NOW, "It matches the source 'aisync'.")] * 3
    command.journal(tmp_path, [*command.deliveries(4), *notices])
    found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "sources", "warning")

    assert [str(one["cause"]).split(",")[0] for one in found] == [
        "callsync: 3 requests were refused and none accepted since"
    ]
    assert "It matches the source 'aisync'." in str(found[0]["cause"])


def test_a_refused_timestamp_is_no_matter_of_the_secret(tmp_path: Path) -> None:
    """The signature is right, so what is to be looked at is the clock."""
    command.settings_file(tmp_path)
    command.journal(tmp_path, [command.refusal("inboundflow", command.NOW, "Late.", reason="timestamp_outside_window")])
    found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "sources", "warning")

    assert "Set this machine's clock" in str(found[0]["fix"])
    assert "secret" not in str(found[0]["fix"])


def test_a_damaged_journal_is_found(tmp_path: Path) -> None:
    """A record of the newest does not match its digest."""
    command.settings_file(tmp_path)
    command.journal(tmp_path, command.deliveries(4))
    edit(tmp_path / "data" / "journal.sqlite", "UPDATE rows SET body = '{}' WHERE position = 2")
    found = _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "journal", "wrong")

    assert "position 2" in str(found[0]["cause"])


def test_a_damaged_store_is_found(tmp_path: Path) -> None:
    """It cannot be opened."""
    command.stock(tmp_path, 2)
    (tmp_path / "data" / "store.duckdb").write_bytes(b"x" * 8192)

    assert _of(rows(run(tmp_path, "doctor", "--format", "json"), 1), "store", "wrong")


def test_deliveries_that_calltally_misread_are_found(tmp_path: Path) -> None:
    """A warning with its remedy, apart from what senders do wrong, which is only a note; `status` tells both."""
    command.stock(tmp_path, 4, more=[command.delivery("aisync", b"not json", command.NOW)])
    letter = DeadLetter(reason="normaliser_failed", detail="A bug.", delivery=misread())
    with closing(command.store_of(tmp_path)) as store:
        store.apply(Batch(positions=[], dead_letters=[letter], applied_at=command.NOW))
    found = rows(run(tmp_path, "doctor", "--format", "json"), 1)

    (warning,) = _of(found, "store", "warning")
    assert "1 proved deliveries are not understood by a mistake of Calltally" in str(warning["cause"])
    assert "calltally dead retry" in str(warning["fix"])
    notes = [str(one["cause"]) for one in _of(found, "store", "note")]
    assert any("1 proved deliveries could not be understood" in note for note in notes)
    assert "2 deliveries, 1 of them by a mistake of Calltally" in told(run(tmp_path, "status"))


def misread() -> Delivery:
    return Delivery(
        source="aisync", provider="aisync", org="", body=b"{}", headers={}, received_at=command.NOW, trust=Trust.B,
        journal_id="j9", position=1,
    )  # fmt: skip


def test_what_the_doctor_says_is_readable(tmp_path: Path) -> None:
    """A line a finding, its remedy below it."""
    (tmp_path / "calltally.toml").write_text('[sources.aisync]\nsecrets = ["short"]\n')
    said = told(run(tmp_path, "doctor"), 1)

    assert "WARNING secrets" in said
    assert "-> Make a new one with `calltally sources rotate aisync --generate`" in said


def _of(found: list[dict[str, object]], check: str, level: str) -> list[dict[str, object]]:
    return [one for one in found if (one["check"], one["level"]) == (check, level)]
