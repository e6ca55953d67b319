"""One configured sender: how the settings describe it, and what must be true of it before anything starts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from calls import provider, secret_files
from calls.errors import SettingsError

FILE_NAME = "calltally.toml"
PREFIX = "CALLTALLY_"
SECRET_PREFIX = PREFIX + "SECRET_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One configured sender."""

    name: str
    provider: str
    org: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    inbound_token: str | None = field(default=None, repr=False)
    unsigned: bool = False
    """Whether its deliveries are accepted without a proof; never true where there is a secret."""


class SourceTable(BaseModel):
    """A `[sources.NAME]` table of the file; the description of each field is its line in the README."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    provider: str | None = Field(
        default=None, description="Which platform sends; needed unless it is the source's name."
    )
    org: str = Field(default="", description="Organisation to which all its calls are counted.")
    secrets: list[str] | None = Field(
        default=None,
        repr=False,
        description="Signing secrets, all accepted at once, the newest first; CALLTALLY_SECRET_NAME replaces them.",
    )
    inbound_token: str | None = Field(
        default=None,
        repr=False,
        min_length=1,
        description="`?token=` that lets a live call's question be answered from the store, with the custom variables "
        "`known_caller`, `caller_name`, `calls_before`, `last_call_at`, `last_result` and `last_summary`.",
    )


def sources_of(tables: object, secrets: Mapping[str, tuple[str, ...]], unsigned: Sequence[str]) -> dict[str, Source]:
    """The sources of `[sources.NAME]` tables, secrets by variable and names allowed unsigned. Raises SettingsError."""
    if not isinstance(tables, Mapping):
        raise SettingsError(f"'sources' in {FILE_NAME} must be tables, such as [sources.synthflow].")
    described_tables = {str(name): _source_table(str(name), table) for name, table in tables.items()}
    names = dict.fromkeys([*described_tables, *_names_in_variables(secrets, described_tables)])
    for name in unsigned:
        if name not in names and name not in provider.discover():
            known = [*names, *provider.discover()]
            raise SettingsError(unknown(f"source '{name}' in {PREFIX}ALLOW_UNSIGNED", name, known))
        names[name] = None
    _refuse_equal_variables(names)
    return {
        name: _source(name, described_tables.get(name, SourceTable()), secrets.get(secret_variable(name)), unsigned)
        for name in names
    }


def warnings_about(sources: Mapping[str, Source], allowed: Iterable[str]) -> list[str]:
    """What works but should be looked at, one sentence each, without secrets."""
    return [*_shared_secrets(sources), *_needlessly_unsigned(sources, allowed)]


def secret_variable(source: str) -> str:
    """The environment variable that carries a source's secrets."""
    return SECRET_PREFIX + source.upper().replace("-", "_")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence about a name that is none of `known`, with the one that was probably meant."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Unknown {what}." + (f" Did you mean '{near[0]}'?" if near else "")


def plain(detail: ErrorDetails) -> str:
    """What pydantic found wrong, as part of a sentence."""
    return detail["msg"].removeprefix("Value error, ").rstrip(".")


def _source_table(name: str, table: object) -> SourceTable:
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,62}", name):
        raise SettingsError(
            f"The source name '{name}' does not fit into a URL. "
            "Use lower-case letters, digits, '-' and '_', 63 of them at most."
        )
    if secret_variable(name).endswith(secret_files.SUFFIX):
        raise SettingsError(
            f"A source cannot be named '{name}': {secret_variable(name)} is the path of a secret's file. Rename it."
        )
    if not isinstance(table, Mapping):
        raise SettingsError(f'[sources.{name}] of {FILE_NAME} must be a table with a line secrets = ["..."].')
    try:
        return SourceTable.model_validate(table)
    except ValidationError as error:
        raise SettingsError("\n".join(_table_sentence(name, detail) for detail in error.errors())) from None


def _table_sentence(name: str, detail: ErrorDetails) -> str:
    key = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return unknown(f"key '{key}' in [sources.{name}] of {FILE_NAME}", key, SourceTable.model_fields)
    if key == "secrets":
        return f'[sources.{name}] of {FILE_NAME}: secrets must be a list of texts: secrets = ["..."].'
    return f"[sources.{name}] of {FILE_NAME}: {key} is wrong: {plain(detail)}."


def _names_in_variables(secrets: Mapping[str, object], tables: Mapping[str, SourceTable]) -> Iterator[str]:
    names = {secret_variable(name): name for name in [*provider.discover(), *tables]}
    for variable in secrets:
        if variable not in names:
            lead = unknown(f"source behind {variable}", variable, names)
            raise SettingsError(
                f"{lead} A source that does not bear its provider's name needs a table [sources.NAME] in {FILE_NAME}."
            )
        yield names[variable]


def _refuse_equal_variables(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(secret_variable(name), name)
        if other != name:
            raise SettingsError(
                f"The sources '{other}' and '{name}' share {secret_variable(name)}. Rename one of them."
            )


def _source(name: str, table: SourceTable, secrets: tuple[str, ...] | None, unsigned: Sequence[str]) -> Source:
    if table.provider is None and name not in provider.discover():
        known = ", ".join(provider.discover())
        raise SettingsError(
            f"The source '{name}' does not say who sends. Add to [sources.{name}] in {FILE_NAME}: "
            f'provider = "...", one of {known}.'
        )
    chosen = tuple(table.secrets or ()) if secrets is None else secrets
    _refuse_empty(name, chosen, given=secrets is not None or table.secrets is not None)
    if not chosen and name not in unsigned:
        raise SettingsError(
            f"The source '{name}' has no secret, so nothing it receives could be proved genuine. Add to "
            f'[sources.{name}] in {FILE_NAME}: secrets = ["..."] (or set {secret_variable(name)}); '
            f'to accept it unsigned: {PREFIX}ALLOW_UNSIGNED="{name}".'
        )
    return Source(
        name=name,
        provider=provider.named(table.provider or name).name,
        org=table.org,
        secrets=chosen,
        inbound_token=table.inbound_token,
        unsigned=not chosen,
    )


def _refuse_empty(name: str, secrets: tuple[str, ...], *, given: bool) -> None:
    if given and (not secrets or not all(secret.strip() for secret in secrets)):
        raise SettingsError(
            f"A secret of the source '{name}' is empty. Give it one in [sources.{name}] of {FILE_NAME} "
            f'(secrets = ["..."]) or in {secret_variable(name)}, or remove the empty one.'
        )


def _shared_secrets(sources: Mapping[str, Source]) -> Iterator[str]:
    holders: dict[str, list[str]] = {}
    for source in sources.values():
        for secret in source.secrets:
            holders.setdefault(secret, []).append(source.name)
    for names in holders.values():
        if len(set(names)) > 1:
            joined = "' and '".join(dict.fromkeys(names))
            yield (
                f"The sources '{joined}' share a secret: who holds it can send as each of them. "
                "Give each source a secret of its own."
            )


def _needlessly_unsigned(sources: Mapping[str, Source], allowed: Iterable[str]) -> Iterator[str]:
    for name in allowed:
        if name in sources and not sources[name].unsigned:
            yield f"The source '{name}' is allowed unsigned but has a secret: its deliveries are verified all the same."
