"""Every setting, from `calltally.toml` in the working folder, over it the environment, over it options.

The only reader of the environment. A wrong or unknown setting stops the start with a `SettingsError` that names it and
shows a line that works; a source that could not verify its sender does so too, unless it is allowed by name.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as PydanticSettingsError,
)

from calls import provider
from calls.errors import SettingsError
from calls.model import Result, Rules

FILE_NAME = "calltally.toml"
PREFIX = "CALLTALLY_"
SECRET_PREFIX = PREFIX + "SECRET_"

Values: TypeAlias = dict[str, object]


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


def _words(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


Words: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""A list in the file, words separated by spaces or commas in the environment."""
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]


def _address(values: Mapping[str, object], process: str) -> str:
    host = str(values.get(f"{process}_host", ""))
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{values.get(f'{process}_port', '')}"


class Settings(BaseSettings):
    """What Calltally was told; the description of each field is its line in the README."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(default=Path("data"), description="Folder of the journal, the store and what people make.")
    ingest_host: str = Field(default="127.0.0.1", min_length=1, description="Address on which webhooks are received.")
    ingest_port: Port = Field(default=8000, description="Port on which webhooks are received.")
    public_url: str = Field(
        default_factory=lambda values: _address(values, "ingest"),
        pattern="^https?://[^/]",
        description="Address under which the providers reach ingest; shown in webhook addresses.",
    )
    sql_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address of the worker's read-only SQL endpoint."
    )
    sql_port: Port = Field(default=8001, description="Port of the worker's read-only SQL endpoint.")
    sql_url: str = Field(
        default_factory=lambda values: _address(values, "sql"),
        pattern="^https?://[^/]",
        description="Address under which dashboard and command line reach the SQL endpoint.",
    )
    sql_token: str | None = Field(
        default=None, repr=False, min_length=1, description="Bearer token of the SQL endpoint, instead of `sql.token`."
    )
    sql_timeout_s: float = Field(default=15, gt=0, le=3600, description="Seconds after which a query is stopped.")
    sql_max_rows: int = Field(default=1_000_000, ge=1, description="Rows after which a query's answer is cut off.")
    dashboard_host: str = Field(default="127.0.0.1", min_length=1, description="Address of the dashboard.")
    dashboard_port: Port = Field(default=8501, description="Port of the dashboard.")
    dashboard_password_hash: str | None = Field(
        default=None, repr=False, pattern=r"^\$argon2", description="Argon2 hash of the dashboard's password."
    )
    kafka_bootstrap_servers: str = Field(
        default="127.0.0.1:9092", min_length=1, description="Kafka brokers, as host:port separated by commas."
    )
    max_body_mib: int = Field(default=32, ge=1, le=1024, description="Largest accepted webhook body, in MiB.")
    inboundflow_tolerance_s: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="Seconds by which a signed timestamp may differ from this machine's clock.",
    )
    success_criterion: str = Field(
        default="goal",
        min_length=1,
        description="Synthflow's analysis criterion that decides whether a call met its aim.",
    )
    success: dict[str, str] = Field(
        default={},
        description='Result of a call by its disposition: `interested = "met"`; other providers than Synthflow.',
    )
    test_numbers: Words = Field(
        default=(), description="Phone numbers (+ and digits) whose calls, from or to, are excluded as tests."
    )
    allow_unsigned: Words = Field(
        default=(),
        description="Names of sources without a secret whose deliveries are accepted without proof (trust D).",
    )
    demo: bool = Field(default=False, description="Whether everything is made up: a banner on every page says so.")
    sources: dict[str, Source] = Field(
        default={}, description="The configured senders by name; see the table of a source."
    )

    @field_validator("public_url", "sql_url", mode="after")
    @classmethod
    def _without_final_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("success", mode="after")
    @classmethod
    def _known_results(cls, value: dict[str, str]) -> dict[str, str]:
        for disposition, result in value.items():
            if result not in set(Result):
                raise ValueError(f"'{disposition}' is mapped to '{result}', which is none of {', '.join(Result)}")
        return value

    @field_validator("test_numbers", mode="after")
    @classmethod
    def _digits_only(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_phone_number(number) for number in value)

    @property
    def journal_path(self) -> Path:
        return self.data_dir / "journal.sqlite"

    @property
    def quarantine_path(self) -> Path:
        return self.data_dir / "quarantine.sqlite"

    @property
    def store_path(self) -> Path:
        return self.data_dir / "store.duckdb"

    @property
    def sql_token_path(self) -> Path:
        return self.data_dir / "sql.token"

    @property
    def rules(self) -> Rules:
        return Rules(
            success_criterion=self.success_criterion, success=dict(self.success), test_numbers=self.test_numbers
        )

    @property
    def warnings(self) -> list[str]:
        """What works but should be looked at, one sentence each, without secrets."""
        return [*_shared_secrets(self.sources), *_needlessly_unsigned(self.sources, self.allow_unsigned)]

    @property
    def ingest_url(self) -> str:
        """The address under which this machine itself reaches ingest."""
        return _address({"ingest_host": self.ingest_host, "ingest_port": self.ingest_port}, "ingest")

    def webhook_url(self, source: str) -> str:
        """The address to paste at the provider."""
        return f"{self.public_url}/webhooks/{source}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` has merged file, environment and options: what is constructed is exactly what was passed.
        return (InitSettingsSource(settings_cls, init_settings()),)


class SourceTable(BaseModel):
    """A `[sources.NAME]` table of the file; the description of each field is its line in the README."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    provider: str | None = Field(
        default=None, description="Which platform sends; needed unless it is the source's name."
    )
    org: str = Field(default="", description="Organisation to which all its calls are counted.")
    secrets: list[str] | None = Field(
        default=None,
        description="Signing secrets, all accepted at once, the newest first; CALLTALLY_SECRET_NAME replaces them.",
    )
    inbound_token: str | None = Field(
        default=None,
        min_length=1,
        description="`?token=` that lets a live call's question be answered from the store.",
    )


def load(folder: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Settings of a working folder; overrides that are None do not count. Raises SettingsError."""
    given = _Given(folder or Path(), os.environ if environ is None else environ, overrides)
    merged = given.merged()
    sources = _sources(merged.pop("sources", {}), given.secrets(), merged.get("allow_unsigned"))
    return given.settings({**merged, "sources": sources})


def load_without_secrets(
    folder: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: object
) -> Settings:
    """Settings without any source, for processes that must not hold a webhook's secret. Raises SettingsError."""
    given = _Given(folder or Path(), os.environ if environ is None else environ, overrides)
    merged = given.merged()
    merged.pop("sources", None)
    return given.settings(merged)


class SourcesWatch:
    """Notices changes of sources and secrets in `calltally.toml`; polled, costs one `stat` when nothing changed."""

    def __init__(
        self, folder: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> None:
        self._folder = folder or Path()
        self._environ = os.environ if environ is None else environ
        self._overrides = overrides
        self._stamp = self._current_stamp()
        self._content = self._current_content()

    def poll(self) -> dict[str, Source] | None:
        """The sources if the file's content changed since the last poll, else None.

        Raises SettingsError once for each content that cannot be used; the caller keeps what it had.
        """
        stamp = self._current_stamp()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        content = self._current_content()
        if content == self._content:
            return None
        self._content = content
        if content is None:
            raise SettingsError(f"{self._folder / FILE_NAME} is gone. Sources stay as they were until it is back.")
        return load(self._folder, self._environ, **self._overrides).sources

    def _current_stamp(self) -> tuple[int, int, int] | None:
        try:
            status = (self._folder / FILE_NAME).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _current_content(self) -> bytes | None:
        try:
            return hashlib.sha256((self._folder / FILE_NAME).read_bytes()).digest()
        except OSError:
            return None


class Described(NamedTuple):
    """One setting as the documentation shows it."""

    key: str
    variable: str
    default: str
    description: str


def described() -> Iterator[Described]:
    """Every setting, then every key of a source."""
    for name, info in Settings.model_fields.items():
        if name != "sources":
            default = "" if info.default_factory or info.default in (None, (), {}) else str(info.default)
            yield Described(name, PREFIX + name.upper(), default, info.description or "")
    for name, info in SourceTable.model_fields.items():
        variable = f"{SECRET_PREFIX}NAME" if name == "secrets" else ""
        yield Described(f"sources.NAME.{name}", variable, "", info.description or "")


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that must not hold a webhook's secret."""
    return {name: value for name, value in environment.items() if not name.startswith(SECRET_PREFIX)}


def child_environment(chosen: Mapping[str, object], *, without_ours: bool = False) -> dict[str, str]:
    """The environment for a process of ours, with `chosen` settings over it, or without what it says about us."""
    inherited = {name: value for name, value in os.environ.items() if not (without_ours and name.startswith(PREFIX))}
    return {**inherited, **{PREFIX + name.upper(): str(value) for name, value in chosen.items()}}


def secret_variable(source: str) -> str:
    """The environment variable that carries a source's secrets."""
    return SECRET_PREFIX + source.upper().replace("-", "_")


class _Given:
    """What file, environment and options say, and which of them said it."""

    def __init__(self, folder: Path, environ: Mapping[str, str], overrides: Mapping[str, object]) -> None:
        self._folder = folder
        self._environ = environ
        self._file = _read_file(folder / FILE_NAME)
        self._environment = _read_environment(environ)
        self._options = {name: value for name, value in overrides.items() if value is not None}

    def merged(self) -> Values:
        return {**self._file, **self._environment, **self._options}

    def secrets(self) -> dict[str, tuple[str, ...]]:
        """Secrets by variable name."""
        return {name: tuple(value.split()) for name, value in self._environ.items() if name.startswith(SECRET_PREFIX)}

    def settings(self, values: Values) -> Settings:
        try:
            settings = Settings.model_validate(values)
        except ValidationError as error:
            # A default that is made of another setting cannot be made when that one is wrong: not worth a sentence.
            details = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
            raise SettingsError("\n".join(map(self._sentence, details))) from None
        return settings.model_copy(update={"data_dir": self._folder / settings.data_dir.expanduser()})

    def _sentence(self, detail: ErrorDetails) -> str:
        name = str(detail["loc"][0])
        if detail["type"] == "extra_forbidden":
            return _unknown(f"setting '{name}' in {self._origin(name)}", name, Settings.model_fields)
        return f"The setting '{name}' ({self._origin(name)}) is wrong: {_plain(detail)}."

    def _origin(self, name: str) -> str:
        if name in self._options:
            return f"option --{name.replace('_', '-')}"
        if name in self._environment:
            return PREFIX + name.upper()
        return FILE_NAME


class _Environment(EnvSettingsSource):
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items() if value and name.startswith(PREFIX)}


def _read_file(path: Path) -> Values:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None


def _read_environment(environ: Mapping[str, str]) -> Values:
    known = {PREFIX + name.upper() for name in Settings.model_fields if name != "sources"}
    for name in environ:
        if name.startswith(PREFIX) and not name.startswith(SECRET_PREFIX) and name not in known:
            raise SettingsError(_unknown(f"environment variable {name}", name, [*known, f"{SECRET_PREFIX}NAME"]))
    try:
        return dict(_Environment(environ)())
    except PydanticSettingsError as error:
        raise SettingsError(f"The environment cannot be read: {error}.") from None


def _sources(tables: object, secrets: Mapping[str, tuple[str, ...]], allow_unsigned: object) -> dict[str, Source]:
    if not isinstance(tables, Mapping):
        raise SettingsError(f"'sources' in {FILE_NAME} must be tables, such as [sources.synthflow].")
    described_tables = {str(name): _source_table(str(name), table) for name, table in tables.items()}
    unsigned = [str(name) for name in _iterable(_words(allow_unsigned))]
    names = dict.fromkeys([*described_tables, *_names_in_variables(secrets, described_tables)])
    for name in unsigned:
        if name not in names and name not in provider.discover():
            known = [*names, *provider.discover()]
            raise SettingsError(_unknown(f"source '{name}' in {PREFIX}ALLOW_UNSIGNED", name, known))
        names[name] = None
    _refuse_equal_variables(names)
    return {
        name: _source(name, described_tables.get(name, SourceTable()), secrets.get(secret_variable(name)), unsigned)
        for name in names
    }


def _source_table(name: str, table: object) -> SourceTable:
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,62}", name):
        raise SettingsError(
            f"The source name '{name}' does not fit into a URL. "
            "Use lower-case letters, digits, '-' and '_', 63 of them at most."
        )
    try:
        return SourceTable.model_validate(table)
    except ValidationError as error:
        raise SettingsError("\n".join(_table_sentence(name, detail) for detail in error.errors())) from None


def _table_sentence(name: str, detail: ErrorDetails) -> str:
    key = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return _unknown(f"key '{key}' in [sources.{name}] of {FILE_NAME}", key, SourceTable.model_fields)
    if key == "secrets":
        return f'[sources.{name}] of {FILE_NAME}: secrets must be a list of texts: secrets = ["..."].'
    return f"[sources.{name}] of {FILE_NAME}: {key or 'it'} is wrong: {_plain(detail)}."


def _names_in_variables(secrets: Mapping[str, object], tables: Mapping[str, SourceTable]) -> Iterator[str]:
    names = {secret_variable(name): name for name in [*provider.discover(), *tables]}
    for variable in secrets:
        if variable not in names:
            lead = _unknown(f"source behind {variable}", variable, names)
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


def _source(name: str, table: SourceTable, secrets: tuple[str, ...] | None, unsigned: list[str]) -> Source:
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


def _phone_number(text: str) -> str:
    number = re.sub(r"[\s().-]", "", text)
    number = "+" + number[2:] if number.startswith("00") else number
    if not re.fullmatch(r"\+[0-9]{4,15}", number):
        raise ValueError(f"'{text}' is no phone number with country code, such as +12137771234")
    return number


def _iterable(value: object) -> Iterable[object]:
    return value if isinstance(value, (list, tuple)) else ()


def _plain(detail: ErrorDetails) -> str:
    return detail["msg"].removeprefix("Value error, ").rstrip(".")


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Unknown {what}." + (f" Did you mean '{near[0]}'?" if near else "")
