"""`calltally providers` and `calltally sources`: which platforms there are, and who may send."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calls import settings as all_settings
from calls.errors import SettingsError
from calls.provider import Provider, discover, named
from cli.output import Format, show

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

app = typer.Typer()
sources_app = typer.Typer(help="Who may send: list, add, rotate secrets.", no_args_is_help=True)
app.add_typer(sources_app, name="sources")

SecretOption = Annotated[
    str | None, typer.Option(help="The platform's signing secret; '-' reads it from standard input.")
]
GenerateOption = Annotated[bool, typer.Option("--generate", help="Make a secret, to be pasted at the platform.")]


@app.command()
def providers(
    name: Annotated[str | None, typer.Argument(help="Show how to connect this one.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """The platforms that Calltally understands, and how to connect each."""
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
    """The configured sources, their addresses, and how many secrets each has; never the secrets."""
    settings = all_settings.load()
    show(
        [
            {
                "name": source.name,
                "provider": source.provider,
                "org": source.org,
                "secrets": len(source.secrets),
                "url": settings.webhook_url(source.name),
            }
            for source in settings.sources.values()
        ],
        form,
    )
    for warning in settings.warnings:
        typer.echo(warning, err=True)


@sources_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the source: the last part of its address.")],
    provider: Annotated[str | None, typer.Option(help="The platform, where the name is not one.")] = None,
    org: Annotated[str, typer.Option(help="Organisation that its calls are counted to.")] = "",
    secret: SecretOption = None,
    generate: GenerateOption = False,
) -> None:
    """Add a source to calltally.toml; a running `calltally up` takes it within two seconds."""
    platform = named(provider or name)
    document = _read()
    tables = document.setdefault("sources", {})
    if name in tables:
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
    typer.echo(_connect_text(platform, address), err=True)
    typer.echo(f"Then try it: calltally send {name}", err=True)


@sources_app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="Name of the source.")],
    secret: SecretOption = None,
    generate: GenerateOption = False,
    finish: Annotated[bool, typer.Option("--finish", help="Drop all secrets but the newest.")] = False,
) -> None:
    """Add a new secret in front of the old one, both valid; later `--finish` drops the old one."""
    document = _read()
    table = document.get("sources", {}).get(name)
    if table is None:
        known = ", ".join(document.get("sources", {})) or "none"
        raise SettingsError(f"calltally.toml has no source '{name}'. It has: {known}.")
    current = [str(value) for value in table.get("secrets", [])]
    if finish:
        table["secrets"] = current[:1]
        _write(document)
        typer.echo(f"'{name}' accepts its newest secret only.", err=True)
        return
    chosen = _secret(secret, generate, named(str(table.get("provider", name))))
    table["secrets"] = [chosen, *current[:1]]
    _write(document)
    if generate:
        typer.echo(chosen)
    typer.echo(
        f"'{name}' accepts the new and the old secret. Change it at the platform, then: calltally sources rotate {name} --finish",
        err=True,
    )


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


def _read() -> TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = Path(all_settings.FILE_NAME)
    if not path.exists():
        return tomlkit.document()
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except TOMLKitError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None


def _write(document: TOMLDocument) -> None:
    import tomlkit

    path = Path(all_settings.FILE_NAME)
    # Written aside and renamed: a reader, such as a running ingest, sees the old file or the new one.
    aside = path.with_suffix(".toml.new")
    with open(os.open(aside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(tomlkit.dumps(document))
    aside.replace(path)
