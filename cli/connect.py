"""`calltally providers` and `calltally sources`: which platforms there are, and who may send."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calls import settings as all_settings
from calls.errors import SettingsError
from calls.model import Trust
from calls.provider import Provider, discover, named
from cli import panels
from cli.output import Format, say, show

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

app = typer.Typer()
sources_app = typer.Typer(help="Who may send: list, add, rotate secrets.", no_args_is_help=True)
app.add_typer(sources_app, name="sources", rich_help_panel=panels.CONNECT)

SecretOption = Annotated[
    str | None, typer.Option(help="The platform's signing secret; '-' reads it from standard input.")
]
GenerateOption = Annotated[bool, typer.Option("--generate", help="Make a secret, to be pasted at the platform.")]


@app.command(rich_help_panel=panels.CONNECT)
def providers(
    name: Annotated[str | None, typer.Argument(help="Show how to connect this one.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """The platforms that Calltally understands, and how to connect each.

    Example: calltally providers synthflow
    """
    if name is not None:
        typer.echo(_connect_text(named(name), "<the address that `calltally sources add` prints>"))
        return
    show(
        [
            {
                "name": provider.name,
                "title": provider.title,
                "trust": provider.scheme.trust.value,
                "signature_header": provider.scheme.headers[0],
                "docs": provider.docs_url,
            }
            for provider in discover().values()
        ],
        form,
    )


@sources_app.command("list")
def list_sources(form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE) -> None:
    """The configured sources, their addresses, and how many secrets each has; never the secrets.

    Example: calltally sources list --format json
    """
    settings = all_settings.load()
    show(
        [
            {
                "name": source.name,
                "provider": source.provider,
                "org": source.org,
                "secrets": len(source.secrets),
                "trust": (Trust.D if source.unsigned else named(source.provider).scheme.trust).value,
                "url": settings.webhook_url(source.name),
            }
            for source in settings.sources.values()
        ],
        form,
    )
    for warning in settings.warnings:
        say(warning)


@sources_app.command()
def add(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of the source: the last part of its address.", show_default="the platform"),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="The platform, where the name is not one; asked for without either.")
    ] = None,
    org: Annotated[str, typer.Option(help="Organisation that its calls are counted to.")] = "",
    secret: SecretOption = None,
    generate: GenerateOption = False,
) -> None:
    """Add a source to calltally.toml; a running `calltally up` takes it within two seconds.

    Example: calltally sources add acme-synthflow --provider synthflow --org acme
    """
    settings = all_settings.load()
    platform = named(provider or name or _asked_platform())
    name = name or platform.name
    known = settings.sources.get(name)
    document = _read()
    tables = document.setdefault("sources", {})
    if name in tables or (known is not None and known.secrets):
        raise SettingsError(
            f"There is a source '{name}' already. `calltally sources rotate {name}` changes its secret."
        )
    chosen = _secret(secret, generate, platform)
    table: dict[str, Any] = {} if name == platform.name else {"provider": platform.name}
    if org:
        table["org"] = org
    tables[name] = {**table, "secrets": [chosen]}
    _write(document)
    address = all_settings.load().webhook_url(name)
    if generate:
        typer.echo(chosen)
    say(_connect_text(platform, address))
    say(f"Then try it: calltally send {name}")


@sources_app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="Name of the source.")],
    secret: SecretOption = None,
    generate: GenerateOption = False,
    finish: Annotated[bool, typer.Option("--finish", help="Drop all secrets but the newest.")] = False,
) -> None:
    """Add a new secret in front of the old one, both valid; later `--finish` drops the old one.

    Example: calltally sources rotate synthflow --generate
    """
    _require_set_in_file(name)
    document = _read()
    table = document.get("sources", {}).get(name)
    current = [] if table is None else [str(value) for value in table.get("secrets", [])]
    if table is None or (finish and not current):
        word = "add" if table is None else "rotate"
        raise SettingsError(
            f"'{name}' is accepted unsigned and has no secret yet. Give it one: calltally sources {word} {name}"
        )
    if finish:
        table["secrets"] = current[:1]
        _write(document)
        say(f"'{name}' accepts its newest secret only.")
        return
    chosen = _secret(secret, generate, named(str(table.get("provider", name))))
    # All earlier ones stay: which of them the platform signs with, only `--finish` is told.
    table["secrets"] = [chosen, *(secret for secret in current if secret != chosen)]
    _write(document)
    if generate:
        typer.echo(chosen)
    if not current:
        say(f"'{name}' accepts only what is signed with the new secret.")
        return
    say(f"'{name}' accepts the new secret and the old. Change it at the platform, then drop the old:")
    say(f"calltally sources rotate {name} --finish")


def _asked_platform() -> str:
    names = ", ".join(discover())
    if not sys.stdin.isatty():
        raise SettingsError(
            "Name the platform, and give its secret on standard input, as in `calltally sources add synthflow "
            f"--secret - < FILE`. Known are: {names}."
        )
    return str(typer.prompt(f"Platform ({names})", value_proc=_known_platform))


def _known_platform(text: str) -> str:
    try:
        return named(text.strip().lower()).name
    except SettingsError as error:
        raise typer.BadParameter(error.message) from None


def _secret(given: str | None, generate: bool, provider: Provider) -> str:
    if generate:
        return secrets.token_hex(32)
    if given == "-":
        given = sys.stdin.readline().strip()
    elif given is None and sys.stdin.isatty():
        given = typer.prompt(f"Signing secret shown by {provider.title}", hide_input=True)
    if not given:
        raise SettingsError("A source needs a secret: --secret - reads it from standard input, --generate makes one.")
    return given


def _connect_text(provider: Provider, address: str) -> str:
    return f"Connect {provider.title} ({provider.docs_url})\n\n{provider.connect.replace('{url}', address)}"


def _require_set_in_file(name: str) -> None:
    """Refuse where a change of the file would change nothing. Raises SettingsError."""
    sources = all_settings.load().sources
    if name not in sources:
        raise SettingsError(f"There is no source '{name}'. There are: {', '.join(sources) or 'none'}.")
    without_environment = all_settings.load(environ={}, allow_unsigned=tuple(sources)).sources
    if sources[name].secrets != without_environment[name].secrets:
        variable = all_settings.secret_variable(name)
        raise SettingsError(f"The secrets of '{name}' are set by {variable}, which goes before calltally.toml.")


def _read() -> TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = Path(all_settings.FILE_NAME)
    if not path.exists():
        return tomlkit.document()
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None


def _write(document: TOMLDocument) -> None:
    """Replace the file by one that holds. Raises SettingsError where it would not, and leaves it as it was."""
    import tomlkit

    text = tomlkit.dumps(document)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / all_settings.FILE_NAME).write_text(text, encoding="utf-8")
        all_settings.load(Path(folder))
    path = Path(all_settings.FILE_NAME).resolve()
    # Written aside and renamed: a reader, such as a running ingest, sees the old file or the new one.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        # A read-only disk refuses this too, and what it says of a hidden file must not hide the sentence above.
        with suppress(OSError):
            aside.unlink()
