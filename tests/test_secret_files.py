"""Secrets in files of their own, named by the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from calls.errors import SettingsError
from calls.settings import load, load_without_secrets
from calls.source import FILE_NAME

NAMES = ("CALLTALLY_SQL_TOKEN", "CALLTALLY_KAFKA_PASSWORD", "CALLTALLY_DASHBOARD_PASSWORD_HASH")


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "secret"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_every_secret_setting_may_stand_in_a_file(tmp_path: Path, name: str) -> None:
    """Without the line's end that every editor adds."""
    settings = load_without_secrets(tmp_path, {f"{name}_FILE": written(tmp_path, "$argon2id$of-a-test\n")})
    assert getattr(settings, name.removeprefix("CALLTALLY_").lower()) == "$argon2id$of-a-test"


def test_secrets_of_a_source_may_stand_in_a_file(tmp_path: Path) -> None:
    """Old and new, as in the variable."""
    environ = {"CALLTALLY_SECRET_SYNTHFLOW_FILE": written(tmp_path, "new\nold\n")}
    assert load(tmp_path, environ).sources["synthflow"].secrets == ("new", "old")


def test_a_process_without_webhook_secrets_does_not_read_their_files(tmp_path: Path) -> None:
    """It may not even be allowed to."""
    environ = {"CALLTALLY_SECRET_SYNTHFLOW_FILE": str(tmp_path / "not-there")}
    assert load_without_secrets(tmp_path, environ).sources == {}


def test_what_is_no_secret_is_read_as_it_stands(tmp_path: Path) -> None:
    """Settings whose value is a path keep it, and others have no such form."""
    assert load(tmp_path, {"CALLTALLY_KAFKA_CA_FILE": "/etc/ca.pem"}).kafka_ca_file == Path("/etc/ca.pem")
    with pytest.raises(SettingsError, match="CALLTALLY_SQL_PORT_FILE"):
        load(tmp_path, {"CALLTALLY_SQL_PORT_FILE": "x"})


@pytest.mark.parametrize("variable", ["CALLTALLY_SQL_TOKEN", "CALLTALLY_SECRET_SYNTHFLOW"])
@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"\n", "empty"), (b"\xff\xfe\xfd", "no text")])
def test_a_file_that_holds_no_secret_is_named_by_its_variable(
    tmp_path: Path, variable: str, content: bytes | None, said: str
) -> None:
    """Never by its path, which may be the secret itself, put into the wrong variable."""
    path = str(tmp_path / "S3CRET") if content is None else written(tmp_path, content)
    with pytest.raises(SettingsError, match=said) as raised:
        load(tmp_path, {f"{variable}_FILE": path})
    assert f"{variable}_FILE" in raised.value.message
    assert path not in raised.value.message


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    """Nobody could say which one counts; an empty variable is as good as none."""
    path = written(tmp_path, "in the file")
    with pytest.raises(SettingsError, match="Keep one of them"):
        load(tmp_path, {"CALLTALLY_SQL_TOKEN": "x", "CALLTALLY_SQL_TOKEN_FILE": path})

    assert load(tmp_path, {"CALLTALLY_SQL_TOKEN": "", "CALLTALLY_SQL_TOKEN_FILE": path}).sql_token == "in the file"
    assert load(tmp_path, {"CALLTALLY_SQL_TOKEN": "x", "CALLTALLY_SQL_TOKEN_FILE": ""}).sql_token == "x"


def test_the_environment_stands_over_the_settings_file_in_this_form_too(tmp_path: Path) -> None:
    """A file of a secret is the environment's word."""
    (tmp_path / FILE_NAME).write_text('sql_token = "of the settings file"\n')
    assert load(tmp_path, {"CALLTALLY_SQL_TOKEN_FILE": written(tmp_path, "other")}).sql_token == "other"
