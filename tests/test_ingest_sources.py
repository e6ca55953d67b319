"""Sources that change while ingest runs, and the quarantine's second look."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import msgspec
import pytest

from calls.errors import SignatureRejected
from calls.model import Trust
from ingest import quarantine as quarantine_module
from ingest.quarantine import (
    BYTES_AT_ONCE,
    ROWS_AT_ONCE,
    Held,
    Quarantine,
    counts_in,
    held_in,
    kept,
    request_retry,
    retry_in,
)
from tests.ingesting import SECRET, Ingest, bodies, ingesting, signed
from tests.waiting import until

RIGHT, WRONG = "the right secret", "a wrong secret"


def body_of(number: int) -> bytes:
    return b'{"event": "call.ended", "data": {"call_id": "c-%d"}}' % number


def settings_with(*secrets: str, more: str = "") -> str:
    quoted = ", ".join(f'"{secret}"' for secret in secrets)
    return f"ingest_port = 0\n[sources.aisync]\nsecrets = [{quoted}]\n{more}"


def change(ingest: Ingest, text: str) -> None:
    """Replace the settings file and wait until ingest has taken it over."""
    before = len(ingest.events("sources_changed"))
    (ingest.folder / "calltally.toml").write_text(text)
    until(lambda: len(ingest.events("sources_changed")) > before)


def quarantine_of(ingest: Ingest) -> Path:
    return ingest.folder / "data" / "quarantine.sqlite"


def test_a_new_source_is_there_without_a_restart(tmp_path: Path) -> None:
    """And one that is taken out is 404."""
    with ingesting(tmp_path, settings_with(SECRET).partition("\n")[2]) as ingest:
        assert ingest.post("callsync", b"x").status_code == 404
        change(ingest, f'[sources.callsync]\nsecrets = ["{SECRET}"]\n')
        assert ingest.post_signed("callsync", body_of(1)).status_code == 200
        assert ingest.post_signed("aisync", body_of(1)).status_code == 404


def test_secrets_rotate_with_an_overlap(tmp_path: Path) -> None:
    """The new one and the old one both count, until the old one is taken out."""
    with ingesting(tmp_path, f'[sources.aisync]\nsecrets = ["{WRONG}"]\n') as ingest:
        assert ingest.post_signed("aisync", body_of(1), secret=WRONG).status_code == 200
        change(ingest, settings_with(RIGHT, WRONG))
        assert ingest.post_signed("aisync", body_of(2), secret=WRONG).status_code == 200
        assert ingest.post_signed("aisync", body_of(3), secret=RIGHT).status_code == 200
        metrics = httpx.get(f"{ingest.url}/metrics").text
        assert 'calltally_older_secret_webhooks_total{source="aisync"} 1.0' in metrics
        change(ingest, settings_with(RIGHT))
        assert ingest.post_signed("aisync", body_of(4), secret=WRONG).status_code == 401


def test_a_broken_file_keeps_the_sources_and_is_logged_once(tmp_path: Path) -> None:
    """A slip while editing must not stop calls from being counted."""
    with ingesting(tmp_path, f'[sources.aisync]\nsecrets = ["{RIGHT}"]\n') as ingest:
        (tmp_path / "calltally.toml").write_text('[sources.aisync]\nsecrets = ["new"\n')
        until(lambda: ingest.events("sources_unchanged"))
        assert ingest.post_signed("aisync", body_of(1), secret=RIGHT).status_code == 200
        (tmp_path / "calltally.toml").write_text("[sources.aisync]\nsecrets = []\n")
        until(lambda: len(ingest.events("sources_unchanged")) == 2)
        change(ingest, settings_with(RIGHT, "newer"))
        assert len(ingest.events("sources_unchanged")) == 2
        assert ingest.post_signed("aisync", body_of(2), secret="newer").status_code == 200


def test_a_corrected_secret_turns_the_quarantine_into_deliveries(tmp_path: Path) -> None:
    """With the time at which they came, each once, and what is still wrong stays."""
    with ingesting(tmp_path, f'[sources.aisync]\nsecrets = ["{WRONG}"]\n') as ingest:
        for number in (1, 2, 1):
            assert ingest.post_signed("aisync", body_of(number), secret=RIGHT).status_code == 401
        assert ingest.post_signed("aisync", body_of(3), secret="neither").status_code == 401
        until(lambda: counts_in(quarantine_of(ingest)).get("aisync", (0, 0))[0] == 3)
        arrived = {held.body: held.received_at for held in held_in(quarantine_of(ingest))}
        change(ingest, settings_with(RIGHT))
        until(lambda: [held.body for held in held_in(quarantine_of(ingest))] == [body_of(3)])
        found = ingest.deliveries()
        assert sorted(bodies(found)) == [body_of(1), body_of(2)]
        assert {delivery.body: delivery.received_at for delivery in found} == {
            body: at for body, at in arrived.items() if body != body_of(3)
        }
        assert {delivery.trust for delivery in found} == {Trust.B}
        assert not [name for delivery in found for name in delivery.headers if "signature" in name]


def test_what_a_stopped_ingest_held_is_verified_again_at_the_start(tmp_path: Path) -> None:
    """The secret was corrected in between; InboundFlow's clock counts from when it came."""
    body = body_of(1)
    with ingesting(tmp_path, f'[sources.inboundflow]\nsecrets = ["{WRONG}"]\n') as ingest:
        assert ingest.post_signed("inboundflow", body, secret=RIGHT).status_code == 401
    with ingesting(tmp_path, f'[sources.inboundflow]\nsecrets = ["{RIGHT}"]\n') as ingest:
        until(lambda: bodies(ingest.deliveries()) == [body])
        until(lambda: not list(held_in(quarantine_of(ingest))))


def test_a_retry_can_be_asked_for_from_outside(tmp_path: Path) -> None:
    """The command line leaves a request, ingest answers it."""
    with ingesting(tmp_path, f'[sources.aisync]\nsecrets = ["{RIGHT}"]\n') as ingest:
        ingest.post_signed("aisync", body_of(1), secret=WRONG)
        until(lambda: counts_in(quarantine_of(ingest)))
        asked = request_retry(quarantine_of(ingest), "aisync")

        def finished() -> bool:
            found = retry_in(quarantine_of(ingest), asked.ticket)
            return found is not None and found.accepted is not None

        until(finished)
        found = retry_in(quarantine_of(ingest), asked.ticket)
        assert found is not None
        assert (found.accepted, found.refused) == (0, 1)


def test_an_unsigned_source_allowed_by_name_is_trusted_least(tmp_path: Path) -> None:
    """Trust D, whatever signature it carries."""
    with ingesting(tmp_path, "", environment={"CALLTALLY_ALLOW_UNSIGNED": "callsync"}) as ingest:
        assert ingest.post("callsync", body_of(1)).status_code == 200
        assert ingest.post("callsync", body_of(2), signed("callsync", body_of(2))).status_code == 200
        assert [delivery.trust for delivery in ingest.deliveries()] == [Trust.D, Trust.D]


def test_inboundflows_tolerance_is_a_setting(tmp_path: Path) -> None:
    """For a sender whose clock is known to be off."""
    text = f'inboundflow_tolerance_s = 5000\n[sources.inboundflow]\nsecrets = ["{SECRET}"]\n'
    with ingesting(tmp_path, text) as ingest:
        for age, status in ((4000, 200), (6000, 401)):
            body = body_of(age)
            headers = signed("inboundflow", body, now_s=int(time.time()) - age)
            assert ingest.post("inboundflow", body, headers).status_code == status


def test_the_quarantine_is_bounded_in_rows_and_bytes(tmp_path: Path) -> None:
    """A stranger fills a share, not the disk, and another source's share is untouched."""
    quarantine = Quarantine(tmp_path / "quarantine.sqlite")
    taken = sum(quarantine.offer(held_of(number)) for number in range(ROWS_AT_ONCE + 500))
    assert taken <= ROWS_AT_ONCE + 10
    assert quarantine.offer(held_of(0, source="other"))
    assert not quarantine.offer(held_of(1, source="third", body=bytes(BYTES_AT_ONCE + 1)))
    quarantine.close()
    assert counts_in(tmp_path / "quarantine.sqlite")["aisync"][0] == taken


def test_what_is_held_too_long_is_dropped_and_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while ingest runs on for months: old junk must not keep out what a wrong secret refuses today."""
    monkeypatch.setattr(quarantine_module, "FORGET_EVERY_S", 0.02)
    monkeypatch.setattr(quarantine_module, "ROWS_PER_SOURCE", 1)
    quarantine = Quarantine(tmp_path / "quarantine.sqlite")
    fresh = msgspec.structs.replace(held_of(2), received_at=time.time_ns() // 1000)
    assert quarantine.offer(held_of(1))

    until(lambda: quarantine.offer(fresh))

    quarantine.close()
    assert [held.body for held in held_in(tmp_path / "quarantine.sqlite")] == [fresh.body]


def test_the_quarantine_counts_an_equal_body_once(tmp_path: Path) -> None:
    """A sender's five attempts are one row."""
    quarantine = Quarantine(tmp_path / "quarantine.sqlite")
    for _ in range(5):
        assert quarantine.offer(held_of(1))
    quarantine.close()
    assert [held.count for held in held_in(tmp_path / "quarantine.sqlite")] == [5]


def test_the_quarantine_survives_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """Deliveries that verify must be accepted all the same."""
    (tmp_path / "quarantine.sqlite").mkdir()
    quarantine = Quarantine(tmp_path / "quarantine.sqlite")
    quarantine.offer(held_of(1))
    assert quarantine.held_after(0, None, 10) == []
    assert quarantine.requested() == []
    quarantine.close()


def test_the_quarantine_keeps_no_other_credentials() -> None:
    """Only what verification may need."""
    headers = [(b"authorization", b"x"), (b"cookie", b"x"), (b"x-signature", b"x")]
    assert kept(headers) == [(b"x-signature", b"x")]


def held_of(number: int, *, source: str = "aisync", body: bytes | None = None) -> Held:
    return Held(
        source=source,
        id=f"{number:064}",
        provider="aisync",
        reason=SignatureRejected.code,
        detail=None,
        headers=[(b"x-webhook-signature", b"0")],
        body=body_of(number) if body is None else body,
        received_at=1_780_315_200_000_000 + number * 1_000_000_000,
    )


@pytest.mark.parametrize("provider", ["aisync", "synthflow"])
def test_with_no_source_at_all_every_address_is_404(tmp_path: Path, provider: str) -> None:
    """Ingest starts all the same, and says how it is."""
    with ingesting(tmp_path, "") as ingest:
        assert ingest.post_signed(provider, b'{"call_id": "a"}').status_code == 404
        assert httpx.get(f"{ingest.url}/readyz").status_code == 200
