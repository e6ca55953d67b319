"""Settings: file, environment and options, one over the other; what is wrong is said so that it can be put right."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import settings as all_settings
from calls.errors import SettingsError
from calls.settings import FILE_NAME, Settings, SourcesWatch, load, load_without_secrets

SECRET = "s3cret-of-a-test"
NOTHING: Mapping[str, str] = {}


def written(folder: Path, text: str) -> Path:
    (folder / FILE_NAME).write_text(text)
    return folder


def refused(folder: Path, text: str = "", environ: Mapping[str, str] = NOTHING, **options: object) -> str:
    """The sentence with which these settings are refused."""
    with pytest.raises(SettingsError) as raised:
        load(written(folder, text), environ, **options)
    return raised.value.message


def test_with_nothing_said_everything_has_a_default(tmp_path: Path) -> None:
    """`calltally up` starts in ./data, on loopback, with no source."""
    settings = load(tmp_path, NOTHING)
    assert settings.data_dir == tmp_path / "data"
    assert (settings.ingest_host, settings.ingest_port) == ("127.0.0.1", 8000)
    assert settings.sql_url == "http://127.0.0.1:8001"
    assert settings.journal_path == tmp_path / "data" / "journal.sqlite"
    assert settings.store_path.name == "store.duckdb"
    assert settings.quarantine_path.name == "quarantine.sqlite"
    assert (settings.max_body_mib, settings.inboundflow_tolerance_s, settings.sources) == (32, 300, {})


def test_the_environment_stands_over_the_file_and_options_over_both(tmp_path: Path) -> None:
    """Who is nearest decides."""
    text = "ingest_port = 1\nsql_port = 1\ndashboard_port = 1\n"
    environ = {"CALLTALLY_SQL_PORT": "2", "CALLTALLY_DASHBOARD_PORT": "2"}
    settings = load(written(tmp_path, text), environ, dashboard_port=3, sql_host=None)
    assert (settings.ingest_port, settings.sql_port, settings.dashboard_port) == (1, 2, 3)
    assert settings.sql_url == "http://127.0.0.1:2"


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path) -> None:
    """Compose files pass on what is not set as an empty text."""
    assert load(tmp_path, {"CALLTALLY_INGEST_PORT": "", "CALLTALLY_SQL_TOKEN": ""}).sql_token is None


def test_lists_are_words_in_the_environment(tmp_path: Path) -> None:
    """Spaces or commas between them."""
    environ = {"CALLTALLY_TEST_NUMBERS": "+12137771234, 004930123456", "CALLTALLY_ALLOW_UNSIGNED": "callsync aisync"}
    settings = load(tmp_path, environ)
    assert settings.rules.test_numbers == ("+12137771234", "+4930123456")
    assert [source.unsigned for source in settings.sources.values()] == [True, True]


def test_rules_are_what_decides_the_meaning_of_a_call(tmp_path: Path) -> None:
    """Another criterion, dispositions of one's own, numbers with blanks."""
    text = 'success_criterion = "booked"\ntest_numbers = ["+1 (213) 777-1234"]\n[success]\ninterested = "met"\n'
    rules = load(written(tmp_path, text), NOTHING).rules
    assert (rules.success_criterion, rules.success, rules.test_numbers) == (
        "booked",
        {"interested": "met"},
        ("+12137771234",),
    )


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("datadir = 'x'", {}, "Did you mean 'data_dir'?"),
        ("", {"CALLTALLY_INGST_PORT": "1"}, "Did you mean 'CALLTALLY_INGEST_PORT'?"),
        ("", {"CALLTALLY_SECRETS": "1"}, "CALLTALLY_SECRETS"),
        ("[sources.aisync]\nsecret = ['x']", {}, "Did you mean 'secrets'?"),
        ("[sources.acme]\nprovider = 'inboundflo'\nsecrets = ['x']", {}, "no provider 'inboundflo'"),
        ("", {"CALLTALLY_SECRET_SYNTFLOW": "x"}, "CALLTALLY_SECRET_SYNTHFLOW"),
        ("", {"CALLTALLY_ALLOW_UNSIGNED": "calsync"}, "Did you mean 'callsync'?"),
        ("ingest_port = 99999", {}, "ingest_port"),
        ("", {"CALLTALLY_INGEST_PORT": "door"}, "CALLTALLY_INGEST_PORT"),
        ("max_body_mib = 0", {}, "max_body_mib"),
        ("[success]\ninterested = 'won'", {}, "met, partly, not_met"),
        ("test_numbers = ['777-1234']", {}, "country code"),
        ("public_url = 'example.com'", {}, "'public_url' (calltally.toml) is wrong: it does not begin with"),
        ("dashboard_password_hash = 'letmein'", {}, "`calltally password` makes one"),
        ("sources = 3", {}, "[sources.synthflow]"),
        ("[sources]\naisync = 'secret'", {}, "[sources.aisync] of calltally.toml must be a table"),
        ("data_dir = [", {}, "not valid TOML"),
        ("[sources.acme-file]\nprovider = 'aisync'\nsecrets = ['x']", {}, "CALLTALLY_SECRET_ACME_FILE is the path"),
        ("[sources.'Acme Inc']\nprovider = 'aisync'\nsecrets = ['x']", {}, "does not fit into a URL"),
        ("[sources.acme]\nsecrets = ['x']", {}, "provider ="),
        ("[sources.aisync]\nsecrets = 'x'", {}, "secrets must be a list"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(
    tmp_path: Path, text: str, environ: dict[str, str], said: str
) -> None:
    """One sentence a person can act on."""
    assert said in refused(tmp_path, text, environ)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Nobody wants to start five times."""
    message = refused(tmp_path, "ingest_port = -1\nsql_prt = 2\nmax_body_mib = 'x'\n")
    assert len(message.splitlines()) == 3


def test_a_source_without_a_secret_is_refused_with_the_line_to_add(tmp_path: Path) -> None:
    """What cannot be proved genuine is not taken unless that is said by name."""
    message = refused(tmp_path, '[sources.acme-callsync]\nprovider = "callsync"\n')
    assert "'acme-callsync'" in message
    assert 'secrets = ["..."]' in message
    assert "CALLTALLY_SECRET_ACME_CALLSYNC" in message
    assert 'CALLTALLY_ALLOW_UNSIGNED="acme-callsync"' in message


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("[sources.aisync]\nsecrets = []", {}),
        ("[sources.aisync]\nsecrets = ['good', '']", {}),
        ("[sources.aisync]\nsecrets = ['  ']", {}),
        ("", {"CALLTALLY_SECRET_AISYNC": ""}),
        ("[sources.aisync]\nsecrets = ['good']", {"CALLTALLY_SECRET_AISYNC": " "}),
        ("[sources.aisync]\nsecrets = []", {"CALLTALLY_ALLOW_UNSIGNED": "aisync"}),
    ],
)
def test_an_empty_secret_is_refused(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    """Anybody can sign with nothing."""
    assert "empty" in refused(tmp_path, text, environ)


def test_secrets_of_the_environment_replace_those_of_the_file(tmp_path: Path) -> None:
    """Several at once, for rotation; a dash in a source's name is an underscore."""
    text = '[sources.acme-x]\nprovider = "aisync"\norg = "acme"\nsecrets = ["old"]\n'
    environ = {"CALLTALLY_SECRET_ACME_X": "new older", "CALLTALLY_SECRET_SYNTHFLOW": "only"}
    sources = load(written(tmp_path, text), environ).sources
    assert (sources["acme-x"].secrets, sources["acme-x"].org) == (("new", "older"), "acme")
    assert (sources["synthflow"].secrets, sources["synthflow"].provider) == (("only",), "synthflow")


def test_a_source_with_a_secret_always_verifies(tmp_path: Path) -> None:
    """To be on the list of unsigned ones changes nothing, but is pointed out."""
    environ = {"CALLTALLY_SECRET_AISYNC": SECRET, "CALLTALLY_ALLOW_UNSIGNED": "aisync"}
    settings = load(tmp_path, environ)
    assert not settings.sources["aisync"].unsigned
    assert ["'aisync' is allowed unsigned" in warning for warning in settings.warnings] == [True]


def test_a_shared_secret_is_a_warning_without_the_secret(tmp_path: Path) -> None:
    """Who holds it can send as either."""
    settings = load(tmp_path, {"CALLTALLY_SECRET_AISYNC": SECRET, "CALLTALLY_SECRET_CALLSYNC": f"other {SECRET}"})
    (warning,) = settings.warnings
    assert "'aisync' and 'callsync' share a secret" in warning
    assert SECRET not in warning


def test_two_names_with_one_variable_are_refused(tmp_path: Path) -> None:
    """Otherwise a secret would go to both."""
    table = "provider = 'aisync'\nsecrets = ['x']\n"
    assert "share CALLTALLY_SECRET_A_B" in refused(tmp_path, f"[sources.a-b]\n{table}[sources.a_b]\n{table}")


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    """Neither in the text of an object nor in the message of an error."""
    text = f"sql_token = '{SECRET}'\n[sources.aisync]\nsecrets = ['{SECRET}']\ninbound_token = '{SECRET}'\n"
    environ = {"CALLTALLY_DASHBOARD_PASSWORD_HASH": f"$argon2id${SECRET}"}
    settings = load(written(tmp_path, text), environ)
    assert settings.sources["aisync"].secrets == (SECRET,)
    assert SECRET not in repr(settings) + str(settings) + repr(settings.sources["aisync"])
    assert SECRET not in refused(tmp_path, f"dashboard_password_hash = '{SECRET}'\n")
    assert SECRET not in refused(tmp_path, f"[sources.aisync]\nsecrets = '{SECRET}'\ninbound_token = 3\n")


def test_the_dashboard_holds_no_webhook_secret(tmp_path: Path) -> None:
    """Not even those whose source is wrong disturb it."""
    text = f"sql_url = 'https://sql.example.com/'\n[sources.aisync]\nsecrets = ['{SECRET}']\n[sources.nobody]\n"
    settings = load_without_secrets(written(tmp_path, text), {"CALLTALLY_SECRET_CALLSYNC": SECRET})
    assert settings.sources == {}
    assert settings.sql_url == "https://sql.example.com"


def test_an_address_for_all_interfaces_is_reached_by_loopback(tmp_path: Path) -> None:
    """A bind address is not one to connect to."""
    settings = load(tmp_path, {"CALLTALLY_SQL_HOST": "0.0.0.0", "CALLTALLY_INGEST_HOST": "::"})
    assert settings.sql_url == "http://127.0.0.1:8001"
    assert settings.ingest_url == "http://[::1]:8000"


def test_a_webhook_address_is_that_of_the_public(tmp_path: Path) -> None:
    """What is pasted at the provider."""
    settings = load(tmp_path, {"CALLTALLY_PUBLIC_URL": "https://hooks.example.com/"})
    assert settings.webhook_url("acme") == "https://hooks.example.com/webhooks/acme"


def test_every_setting_describes_itself(tmp_path: Path) -> None:
    """The README's table is made of this."""
    described = list(all_settings.described())
    assert {one.key for one in described if not one.key.startswith("sources.")} == set(Settings.model_fields) - {
        "sources"
    }
    assert all(one.description.endswith(".") for one in described)


def test_a_childs_environment_carries_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ours, or without any of ours."""
    monkeypatch.setitem(os.environ, "CALLTALLY_SQL_PORT", "1")
    assert all_settings.child_environment({"ingest_port": 2})["CALLTALLY_SQL_PORT"] == "1"
    alone = all_settings.child_environment({"ingest_port": 2}, without_ours=True)
    assert {name for name in alone if name.startswith("CALLTALLY_")} == {"CALLTALLY_INGEST_PORT"}
    assert load(tmp_path, alone).ingest_port == 2


def test_a_watch_tells_changed_sources_once(tmp_path: Path) -> None:
    """Saving the same again is no change."""
    text = f"[sources.aisync]\nsecrets = ['{SECRET}']\n"
    watch = SourcesWatch(written(tmp_path, text), NOTHING)
    assert watch.poll() is None
    written(tmp_path, text)
    assert watch.poll() is None
    written(tmp_path, f"[sources.aisync]\nsecrets = ['new', '{SECRET}']\n")
    changed = watch.poll()
    assert changed is not None
    assert changed["aisync"].secrets == ("new", SECRET)
    assert watch.poll() is None


def test_a_watch_complains_once_about_each_broken_content(tmp_path: Path) -> None:
    """Also when the file is gone."""
    watch = SourcesWatch(written(tmp_path, f"[sources.aisync]\nsecrets = ['{SECRET}']\n"), NOTHING)
    for broken in ("[sources.aisync", "[sources.aisync]\nsecrets = ['']\n"):
        written(tmp_path, broken)
        with pytest.raises(SettingsError):
            watch.poll()
        written(tmp_path, broken)
        assert watch.poll() is None
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(SettingsError, match="is gone"):
        watch.poll()
    assert watch.poll() is None
    written(tmp_path, "[sources.callsync]\nsecrets = ['x']\n")
    assert set(watch.poll() or {}) == {"callsync"}


@given(st.text(max_size=200))
def test_any_text_as_a_file_is_settings_or_a_sentence(text: str) -> None:
    """Never another error than the one that is meant to be read."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_text(text, encoding="utf-8", errors="surrogateescape")
        with suppress(SettingsError):
            assert load(Path(folder), NOTHING).data_dir.is_relative_to("/")
