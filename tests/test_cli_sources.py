"""`calltally providers`, `sources` and `send`: who may send, and trying it."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from calls.settings import load
from tests import command
from tests.command import answered, rows, run, told

SECRET = "k2Vx9fQe7LmT4cRz"


def test_a_source_is_added_with_a_secret_from_standard_input(tmp_path: Path) -> None:
    """The file can be read by its owner only, and the address to paste is told on stderr."""
    (tmp_path / "calltally.toml").write_text('# mine\ndata_dir = "kept"\n')
    done = run(
        tmp_path,
        "sources",
        "add",
        "acme-aisync",
        "--provider",
        "aisync",
        "--org",
        "acme",
        "--secret",
        "-",
        stdin=SECRET,
    )

    assert told(done) == ""
    assert "/webhooks/acme-aisync" in done.stderr.decode()
    source = load(tmp_path, {}).sources["acme-aisync"]
    assert (source.provider, source.org, source.secrets) == ("aisync", "acme", (SECRET,))
    assert (tmp_path / "calltally.toml").read_text().startswith("# mine\n")
    assert stat.S_IMODE((tmp_path / "calltally.toml").stat().st_mode) == 0o600


def test_without_a_name_a_terminal_asks_for_platform_and_secret(tmp_path: Path) -> None:
    """`calltally sources add` is the line that other commands and the empty dashboard tell people to copy."""
    said = answered(tmp_path, ["sources", "add"], ["phonely", "synthflow", SECRET])

    assert "Platform (aisync, callsync, inboundflow, synthflow)" in said
    assert "There is no provider 'phonely'" in said
    assert "/webhooks/synthflow" in said
    assert SECRET not in said
    assert load(tmp_path, {}).sources["synthflow"].secrets == (SECRET,)


def test_without_a_name_and_a_terminal_a_whole_line_is_shown(tmp_path: Path) -> None:
    """A script cannot be asked; the platform alone is enough of a name."""
    done = run(tmp_path, "sources", "add", stdin=SECRET)
    assert told(done, 2) == ""
    assert "calltally sources add synthflow --secret -" in done.stderr.decode()

    told(run(tmp_path, "sources", "add", "--provider", "aisync", "--secret", "-", stdin=SECRET))
    assert load(tmp_path, {}).sources["aisync"].secrets == (SECRET,)


def test_a_generated_secret_is_all_there_is_on_standard_output(tmp_path: Path) -> None:
    """So that it can be piped to where it is needed."""
    made = told(run(tmp_path, "sources", "add", "callsync", "--generate")).strip()

    assert load(tmp_path, {}).sources["callsync"].secrets == (made,)
    assert len(made) == 64


@pytest.mark.parametrize(
    "words",
    [
        ["add", "Bad Name", "--provider", "aisync", "--secret", SECRET],
        ["add", "mine", "--secret", SECRET],
        ["add", "aisync", "--secret", SECRET],
        ["add", "callsync", "--secret", " "],
        ["rotate", "nobody", "--generate"],
    ],
)
def test_a_wrong_source_leaves_the_file_as_it_was(tmp_path: Path, words: list[str]) -> None:
    """Exit code 2 and a sentence."""
    before = f'[sources.aisync]\nsecrets = ["{SECRET}"]\n'
    (tmp_path / "calltally.toml").write_text(before)
    done = run(tmp_path, "sources", *words)

    assert told(done, 2) == ""
    assert done.stderr.decode().strip()
    assert (tmp_path / "calltally.toml").read_text() == before
    assert [left.name for left in tmp_path.iterdir()] == ["calltally.toml"]


def test_rotating_keeps_every_older_secret_until_it_is_finished(tmp_path: Path) -> None:
    """The platform may still sign with any of them."""
    (tmp_path / "calltally.toml").write_text(f'[sources.aisync]\nsecrets = ["{SECRET}"]\n')
    first = told(run(tmp_path, "sources", "rotate", "aisync", "--generate")).strip()
    second = told(run(tmp_path, "sources", "rotate", "aisync", "--generate")).strip()

    assert load(tmp_path, {}).sources["aisync"].secrets == (second, first, SECRET)
    told(run(tmp_path, "sources", "rotate", "aisync", "--finish"))
    assert load(tmp_path, {}).sources["aisync"].secrets == (second,)


def test_a_secret_of_the_environment_is_not_rotated_in_the_file(tmp_path: Path) -> None:
    """Where the change would change nothing, that is said."""
    done = run(tmp_path, "sources", "rotate", "aisync", "--generate", environ={"CALLTALLY_SECRET_AISYNC": SECRET})

    assert told(done, 2) == ""
    assert "CALLTALLY_SECRET_AISYNC" in done.stderr.decode()


def test_a_source_without_a_secret_is_sent_to_where_it_gets_one(tmp_path: Path) -> None:
    """An unsigned source has nothing to rotate, and no variable of the environment is to blame."""
    (tmp_path / "calltally.toml").write_text('allow_unsigned = ["callsync"]\n')
    done = run(tmp_path, "sources", "rotate", "callsync", "--secret", "-", stdin=SECRET)

    assert told(done, 2) == ""
    assert done.stderr.decode() == (
        "calltally: 'callsync' is accepted unsigned and has no secret yet. "
        "Give it one: calltally sources add callsync\n"
    )
    told(run(tmp_path, "sources", "add", "callsync", "--secret", "-", stdin=SECRET))
    assert load(tmp_path, {}).sources["callsync"].secrets == (SECRET,)


def test_an_unsigned_source_with_a_table_gets_its_first_secret_by_rotating(tmp_path: Path) -> None:
    """`add` refuses a name that the file has, so `rotate` must not send back to it."""
    (tmp_path / "calltally.toml").write_text('allow_unsigned = ["callsync"]\n[sources.callsync]\norg = "acme"\n')
    finished = run(tmp_path, "sources", "rotate", "callsync", "--finish")
    assert told(finished, 2) == ""
    assert "calltally sources rotate callsync" in finished.stderr.decode()

    done = run(tmp_path, "sources", "rotate", "callsync", "--secret", "-", stdin=SECRET)
    assert told(done) == ""
    assert "the old" not in done.stderr.decode()
    source = load(tmp_path, {}).sources["callsync"]
    assert (source.org, source.secrets, source.unsigned) == ("acme", (SECRET,), False)


def test_sources_are_listed_without_their_secrets(tmp_path: Path) -> None:
    """Name, provider, number of secrets, trust and address."""
    command.settings_file(tmp_path)
    done = run(tmp_path, "sources", "list", "--format", "json")

    assert [one["source" if "source" in one else "name"] for one in rows(done)] == list(command.SECRETS)
    assert not any(secret.encode() in done.stdout + done.stderr for secret in command.SECRETS.values())


def test_each_provider_says_how_to_connect_it(tmp_path: Path) -> None:
    """All in the list, and one by name."""
    assert {one["name"] for one in rows(run(tmp_path, "providers", "--format", "json"))} == set(command.SECRETS)
    assert "Connect InboundFlow" in told(run(tmp_path, "providers", "inboundflow"))
    assert told(run(tmp_path, "providers", "nobody"), 2) == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["synthflow"], 1, "Nobody answers at"),
        (["nobody"], 2, "There is no source 'nobody'"),
        (["synthflow", "--event", "nothing"], 2, "has no sample of an event 'nothing'"),
        (["synthflow", "--url", "http://[bad"], 1, "Nobody answers at"),
        (["synthflow", "--url", "calls.example.com"], 2, "'calls.example.com' is no address"),
        (["synthflow", "--file", "missing.json"], 2, "does not exist"),
    ],
)
def test_sending_in_vain_is_answered_by_a_sentence(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    """Nobody listens, or what was asked for does not exist."""
    command.settings_file(tmp_path)
    done = run(tmp_path, "send", *words)

    assert told(done, code) == ""
    assert said in " ".join(done.stderr.decode().replace("│", " ").split())


def test_every_command_explains_itself(tmp_path: Path) -> None:
    """--help of each tells what it is for and shows an example."""
    import typer.main

    from cli.main import build

    group = typer.main.get_command(build())
    assert isinstance(group, typer.core.TyperGroup)
    own = (
        "sql",
        "status",
        "metrics",
        "report",
        "export",
        "snapshot",
        "verify",
        "rebuild",
        "doctor",
        "send",
        "providers",
    )
    for name in own:
        assert "Example: calltally" in str(group.commands[name].help), name
    for name in ("dead", "quarantine", "sources"):
        inner = group.commands[name]
        assert isinstance(inner, typer.core.TyperGroup)
        for one in inner.commands.values():
            assert "Example: calltally" in str(one.help), (name, one.name)
    assert "Example: calltally verify" in told(run(tmp_path, "verify", "--help"))


def test_the_settings_file_stays_readable_toml(tmp_path: Path) -> None:
    """Tables, one a source."""
    for name in ("aisync", "callsync"):
        run(tmp_path, "sources", "add", name, "--generate")

    assert set(tomllib.loads((tmp_path / "calltally.toml").read_text())["sources"]) == {"aisync", "callsync"}
    assert "[sources.aisync]" in (tmp_path / "calltally.toml").read_text()
