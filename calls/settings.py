"""Every setting, from `calltally.toml` in the working folder, over it the environment, over it options.

The only reader of the environment. A wrong or unknown setting stops the start with a `SettingsError` that names it and
shows a line that works; a source that could not verify its sender does so too, unless it is allowed by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, field_validator
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

from calls import secret_files
from calls.errors import SettingsError
from calls.model import Result, Rules
from calls.source import (
    FILE_NAME,
    PREFIX,
    SECRET_PREFIX,
    Source,
    SourceTable,
    plain,
    secret_variable,
    sources_of,
    unknown,
    warnings_about,
)

__all__ = [
    "FILE_NAME",
    "PREFIX",
    "Settings",
    "Source",
    "SourcesWatch",
    "child_environment",
    "described",
    "file_holds_secret",
    "load",
    "load_without_secrets",
    "secret_variable",
    "without_secrets",
]

Values: TypeAlias = dict[str, object]
KAFKA_PREFIX = f"{PREFIX}KAFKA_"
KAFKA_PORT = 9092
"""Of a broker that is named without one."""


def _words(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


Words: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""A list in the file, words separated by spaces or commas in the environment."""
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]


def web_address(value: str) -> str:
    """An address of http or https, without a slash at its end. Raises ValueError."""
    if not re.match("https?://[^/]", value):
        raise ValueError("it does not begin with http:// or https:// and a name, as https://example.com does")
    return value.rstrip("/")


def _argon2_hash(value: str) -> str:
    # Not repeated: it may be the password itself.
    if not value.startswith("$argon2"):
        raise ValueError("it is no argon2 hash, which begins with $argon2; `calltally password` makes one")
    return value


Address: TypeAlias = Annotated[str, AfterValidator(web_address)]
PasswordHash: TypeAlias = Annotated[str, AfterValidator(_argon2_hash)]


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
    public_url: Address = Field(
        default_factory=lambda values: _address(values, "ingest"),
        description="Address under which the providers reach ingest; shown in webhook addresses.",
    )
    sql_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address of the worker's read-only SQL endpoint."
    )
    sql_port: Port = Field(default=8001, description="Port of the worker's read-only SQL endpoint.")
    sql_url: Address = Field(
        default_factory=lambda values: _address(values, "sql"),
        description="Address under which dashboard and command line reach the SQL endpoint.",
    )
    sql_token: str | None = Field(
        default=None, repr=False, min_length=1, description="Bearer token of the SQL endpoint, instead of `sql.token`."
    )
    sql_timeout_s: float = Field(default=15, gt=0, le=3600, description="Seconds after which a query is stopped.")
    sql_max_rows: int = Field(default=1_000_000, ge=1, description="Rows after which a query's answer is cut off.")
    dashboard_host: str = Field(default="127.0.0.1", min_length=1, description="Address of the dashboard.")
    dashboard_port: Port = Field(default=8501, description="Port of the dashboard.")
    dashboard_url: Address = Field(
        default_factory=lambda values: _address(values, "dashboard"),
        description="Address under which people reach the dashboard; with https its cookie is sent over TLS only.",
    )
    dashboard_password_hash: PasswordHash | None = Field(
        default=None,
        repr=False,
        description="Argon2 hash of the dashboard's password; `calltally password` makes one.",
    )
    kafka_bootstrap_servers: str = Field(
        default="", description="Kafka brokers, as host:port separated by commas; `up --kafka` and the relay need them."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="How the brokers are spoken to; `SASL_...` needs a user and a password."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="How the user and the password are proved to Kafka."
    )
    kafka_username: str | None = Field(default=None, min_length=1, description="User at the brokers.")
    kafka_password: str | None = Field(default=None, repr=False, min_length=1, description="Password at the brokers.")
    kafka_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the brokers' certificates, if not a public one.",
    )
    kafka_certificate_file: Path | None = Field(
        default=None, description="PEM file of our own certificate, where the brokers ask for one."
    )
    kafka_key_file: Path | None = Field(default=None, description="PEM file of our certificate's private key.")
    kafka_partitions: int = Field(
        default=4, ge=1, le=10_000, description="Partitions of the topics that the relay makes."
    )
    kafka_replication: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Copies of every record in the topics that the relay makes; as many as there are brokers, at most.",
    )
    kafka_retention_ms: int = Field(
        default=-1, ge=-1, description="Milliseconds that Kafka keeps deliveries and notices; -1 for ever."
    )
    kafka_record_max_bytes: int = Field(
        default=1_048_576,
        ge=262_144,
        le=104_857_600,
        description="Largest record; longer bodies travel in several. Sets `max.message.bytes` of the relay's topics.",
    )
    kafka_compression: Literal["none", "gzip"] = Field(
        default="none", description="How the relay packs records: gzip saves network and disk and costs CPU."
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
    def kafka_servers(self) -> list[tuple[str, int]]:
        """Host and port of each broker that is named. Raises SettingsError where none is, or one cannot be read."""
        found = []
        for server in self.kafka_bootstrap_servers.replace(",", " ").split():
            host, colon, port = server.rpartition(":")
            if not colon or server.endswith("]"):
                host, port = server, str(KAFKA_PORT)
            if not port.isdigit() or not 0 < int(port) < 65536 or not host:
                raise SettingsError(f"kafka_bootstrap_servers names '{server}'; write host:port, separated by commas.")
            found.append((host.strip("[]"), int(port)))
        if not found:
            raise SettingsError(
                "No Kafka broker is named. Set CALLTALLY_KAFKA_BOOTSTRAP_SERVERS, or kafka_bootstrap_servers in "
                f"{FILE_NAME}, to host:port, separated by commas."
            )
        return found

    @property
    def warnings(self) -> list[str]:
        """What works but should be looked at, one sentence each, without secrets."""
        return warnings_about(self.sources, self.allow_unsigned)

    @property
    def ingest_url(self) -> str:
        """The address under which this machine itself reaches ingest."""
        return _address({"ingest_host": self.ingest_host, "ingest_port": self.ingest_port}, "ingest")

    @property
    def sql_local_url(self) -> str:
        """The address under which this machine itself reaches the SQL endpoint of its own worker."""
        return _address({"sql_host": self.sql_host, "sql_port": self.sql_port}, "sql")

    @property
    def dashboard_local_url(self) -> str:
        """The address under which this machine itself reaches the dashboard."""
        values = {"dashboard_host": self.dashboard_host, "dashboard_port": self.dashboard_port}
        return _address(values, "dashboard")

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


def load(folder: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Settings of a working folder; overrides that are None do not count. Raises SettingsError."""
    given = _Given(folder or Path(), os.environ if environ is None else environ, overrides)
    merged = given.merged()
    sources = sources_of(merged.pop("sources", {}), given.secrets(), _names(merged.get("allow_unsigned")))
    return given.settings({**merged, "sources": sources})


def load_without_secrets(
    folder: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: object
) -> Settings:
    """Settings without any source, for processes that must not hold a webhook's secret. Raises SettingsError."""
    given = _Given(folder or Path(), os.environ if environ is None else environ, overrides)
    merged = given.merged()
    merged.pop("sources", None)
    return given.settings(merged)


def file_holds_secret(folder: Path) -> bool:
    """Whether `calltally.toml` itself holds anything that others must not read. Raises SettingsError."""
    values = _read_file(folder / FILE_NAME)
    tables = values.get("sources")
    described_here: list[tuple[type[BaseModel], object]] = [(Settings, values)]
    described_here += [(SourceTable, table) for table in (tables.values() if isinstance(tables, Mapping) else ())]
    return any(
        table.get(name)
        for model, table in described_here
        if isinstance(table, Mapping)
        for name, info in model.model_fields.items()
        if not info.repr
    )


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


def child_environment(
    chosen: Mapping[str, object], *, without_ours: bool = False, but_kafka: bool = False
) -> dict[str, str]:
    """The environment for a process of ours, with `chosen` settings over it.

    Or without what it says about us, all of it or all but how Kafka is reached.
    """
    kept = KAFKA_PREFIX if but_kafka else ()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not (without_ours and name.startswith(PREFIX)) or name.startswith(kept)
    }
    return {**inherited, **{PREFIX + name.upper(): str(value) for name, value in chosen.items()}}


class _Given:
    """What file, environment and options say, and which of them said it."""

    def __init__(self, folder: Path, environ: Mapping[str, str], overrides: Mapping[str, object]) -> None:
        self._folder = folder
        self._environ = environ
        self._file = _read_file(folder / FILE_NAME)
        self._environment = _read_environment(secret_files.read_in(environ, _is_secret_setting))
        self._options = {name: value for name, value in overrides.items() if value is not None}

    def merged(self) -> Values:
        return {**self._file, **self._environment, **self._options}

    def secrets(self) -> dict[str, tuple[str, ...]]:
        """Secrets by variable name."""
        ours = {name: value for name, value in self._environ.items() if name.startswith(SECRET_PREFIX)}
        given = secret_files.read_in(ours, lambda _: True)
        return {name: tuple(value.split()) for name, value in given.items()}

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
            return unknown(f"setting '{name}' in {self._origin(name)}", name, Settings.model_fields)
        return f"The setting '{name}' ({self._origin(name)}) is wrong: {plain(detail)}."

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


def _is_secret_setting(variable: str) -> bool:
    info = Settings.model_fields.get(variable.removeprefix(PREFIX).lower())
    return info is not None and not info.repr


def _read_environment(environ: Mapping[str, str]) -> Values:
    known = {PREFIX + name.upper() for name in Settings.model_fields if name != "sources"}
    for name in environ:
        if name.startswith(PREFIX) and not name.startswith(SECRET_PREFIX) and name not in known:
            raise SettingsError(unknown(f"environment variable {name}", name, [*known, f"{SECRET_PREFIX}NAME"]))
    try:
        return dict(_Environment(environ)())
    except PydanticSettingsError as error:
        raise SettingsError(f"The environment cannot be read: {error}.") from None


def _names(value: object) -> list[str]:
    # Looked at before it is validated; what is no list of words is refused with the other settings.
    words = _words(value)
    return [str(word) for word in words] if isinstance(words, list | tuple) else []


def _phone_number(text: str) -> str:
    number = re.sub(r"[\s().-]", "", text)
    number = "+" + number[2:] if number.startswith("00") else number
    if not re.fullmatch(r"\+[0-9]{4,15}", number):
        raise ValueError(f"'{text}' is no phone number with country code, such as +12137771234")
    return number
