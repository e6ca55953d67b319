"""Making files: `calltally report`, `export` and `snapshot`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeVar

import typer

from calls import settings as all_settings
from calls.errors import CalltallyError, StoreLocked
from cli import panels
from cli.asking import asking
from cli.narrowed import NAME_MOST, Agent, Asked, Org, Provider, agent_names, clients, only
from cli.output import progress, put, say, whole_file
from cli.period import From, To, Zone

if TYPE_CHECKING:
    from analytics.exports import Form
    from analytics.extract import Extract, Range
    from calls.settings import Settings
    from dashboard.reader import StoreReader
    from dashboard.view import View

app = typer.Typer()

Known = TypeVar("Known", bound=StrEnum)


class ReportFormat(StrEnum):
    """Forms of a report."""

    HTML = "html"
    XLSX = "xlsx"
    CSV = "csv"
    PARQUET = "parquet"
    MARKDOWN = "md"


class ExportFormat(StrEnum):
    """Forms of an exported table."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    XLSX = "xlsx"


@app.command(rich_help_panel=panels.SEND_ON)
def report(
    start: From = "7d",
    end: To = "now",
    zone: Zone = "UTC",
    provider: Provider = None,
    agent: Agent = None,
    org: Org = None,
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "Call outcomes",
    form: Annotated[
        ReportFormat | None, typer.Option("--format", help="Default: what the ending of -o says, else html.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Default: a name made of client and range; '-' is standard output."),
    ] = None,
) -> None:
    """Write a report: one HTML page with charts that opens offline, or its numbers as a table.

    The numbers are those of the dashboard's overview, beside those of the period before.

    Example: calltally report --from 2026-11-01 --to 2026-11-30 --zone Europe/Berlin -o november.html
    """
    from analytics.metric import catalogue
    from cli.period import view as view_of
    from dashboard.reader import StoreReader

    now = datetime.now(UTC)
    settings = all_settings.load_without_secrets()
    chosen = form or _by_ending(output, ReportFormat) or ReportFormat.HTML
    metrics = catalogue(settings.data_dir / "metrics")
    with asking(settings) as ask:
        reader = StoreReader(ask, metrics)
        names = agent_names(ask)
        view = view_of(start, end, zone=zone, only=only(ask, Asked(provider, agent, org)), now=now)
        content = _report(chosen, reader, view, title=title, names=names, now=now, settings=settings)
    path = output or Path(f"calltally{_of_clients(org or [])}-{_days(view)}.{chosen}")
    if chosen in (ReportFormat.XLSX, ReportFormat.PARQUET):
        _refuse_terminal(path)
    put(content, path)
    if str(path) != "-":
        say(f"{path}: {view.label} ({zone})")


@app.command(rich_help_panel=panels.SEND_ON)
def export(
    table: Annotated[
        list[str] | None, typer.Option(help="calls, call_analysis, ... or all; may be repeated.", show_default="calls")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="Only calls from then on: 2026-11-01, 30d, ...")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Only calls until then; a day is included.")] = None,
    zone: Zone = "UTC",
    org: Org = None,
    form: Annotated[
        ExportFormat | None, typer.Option("--format", help="Default: what the ending of -o says, else csv.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A file; a folder for several tables. Default: stdout for one."),
    ] = None,
) -> None:
    """Write whole tables, all of the same moment, whatever their size.

    With --from or --to, the other tables keep what belongs to the calls of that range. With --org, only tables that
    tell clients apart are written, so that a client gets nothing of another one. In CSV, text that a spreadsheet
    would compute (such as a phone number with +) gets an apostrophe in front; parquet and json carry it as it is.

    Example: calltally export --table all --format parquet --from 30d -o november/
    """
    from analytics.exports import Form
    from cli.period import within as range_of

    settings = all_settings.load_without_secrets()
    within = range_of(start, end, zone=zone, now=datetime.now(UTC))
    chosen = Form(form or _by_ending(output, ExportFormat) or ExportFormat.CSV)
    with _extract(settings) as extract:
        if org:
            extract.narrow(clients(extract.orgs, org))
        tables = _tables(table or ["calls"], extract, of_client=bool(org))
        if len(tables) == 1 and (output is None or str(output) == "-"):
            if chosen in (Form.XLSX, Form.PARQUET):
                _refuse_terminal(Path("-"))
            _export(extract, tables[0], chosen, sys.stdout.buffer, within)
        elif output is None:
            raise typer.BadParameter("Several tables need a folder: -o FOLDER.", param_hint="-o")
        elif len(tables) == 1 and not output.is_dir() and output.suffix:
            with whole_file(output) as file:
                rows = _export(extract, tables[0], chosen, file, within)
            say(f"{rows:,} rows in {output}")
        elif chosen is Form.XLSX and output.suffix:
            _export_workbook(extract, tables, output, within)
        else:
            _export_folder(extract, tables, chosen, output, within)


@app.command(rich_help_panel=panels.SEND_ON)
def snapshot(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to make, such as calls.duckdb.")],
) -> None:
    """Write a consistent copy of all tables as a DuckDB file of its own, which any DuckDB client opens freely.

    The worker that runs makes it and goes on meanwhile; where none does, the store is opened for it.

    Example: calltally snapshot -o calls.duckdb && duckdb calls.duckdb "FROM calls LIMIT 5"
    """
    from cli import owner

    settings = all_settings.load_without_secrets()
    if output.absolute() == settings.store_path.absolute():
        raise typer.BadParameter("That is the store itself; name another file.", param_hint="-o")
    _require_folder(output)
    with progress("MiB copied") as told:
        owner.copy(settings, output, told)
    say(f"{output}: {output.stat().st_size >> 20:,} MiB")


def _report(
    form: ReportFormat,
    reader: StoreReader,
    view: View,
    *,
    title: str,
    names: Mapping[str, str],
    now: datetime,
    settings: Settings,
) -> bytes:
    from analytics.exports import Form, to_bytes
    from analytics.metric import catalogue
    from dashboard import report as made

    head = made.header(view, title=title, names=names, made_at=now, demo=settings.demo)
    if form is ReportFormat.HTML:
        return made.html(reader, view, head, names).encode("utf-8", "replace")
    table = made.rows(reader, view, catalogue(settings.data_dir / "metrics"))
    match form:
        case ReportFormat.MARKDOWN:
            return made.markdown(table, view.filters.zone, head)
        case ReportFormat.XLSX:
            return made.workbook(table, view.filters.zone, head)
        case _:
            return to_bytes(table, Form(form))


def _of_clients(orgs: list[str]) -> str:
    """For the name of a file: one client's report must not take the place of another's."""
    return "".join("-" + re.sub(r"[^\w.-]+", "_", org) for org in orgs)[:NAME_MOST]


def _days(view: View) -> str:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(view.filters.zone)
    first, last = (
        datetime.fromtimestamp(at / 1_000_000, UTC).astimezone(zone).date()
        for at in (view.filters.start, view.filters.end - 1)
    )
    return f"{first}" if first == last else f"{first}-to-{last}"


@contextmanager
def _extract(settings: Settings) -> Iterator[Extract]:
    """All tables as they are at this moment: of the store's file, or of a copy that its owner makes."""
    from analytics.extract import Extract
    from cli import owner

    try:
        if not settings.store_path.exists():
            raise StoreLocked("There is no store in the data folder; perhaps it is elsewhere, with its worker.")
        extract = Extract(settings.store_path)
    except StoreLocked:
        # On the disk of the data where there is one: what is copied may be larger than the folder for small things.
        beside = settings.data_dir if os.access(settings.data_dir, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix=".export-", dir=beside) as folder:
            copy = Path(folder) / "copy.duckdb"
            with progress("MiB copied") as told:
                owner.copy(settings, copy, told)
            extract = Extract(copy)
            try:
                yield extract
            finally:
                extract.close()
        return
    try:
        yield extract
    finally:
        extract.close()


def _tables(asked: list[str], extract: Extract, *, of_client: bool) -> list[str]:
    known = extract.tables
    wanted = known if "all" in asked else list(dict.fromkeys(asked))
    for name in wanted:
        if name not in known:
            what = "table that tells clients apart by the name" if of_client else "table"
            raise typer.BadParameter(
                f"There is no {what} '{name}'. There are: {', '.join(known)}.", param_hint="--table"
            )
    return wanted


def _export(extract: Extract, table: str, form: Form, file: BinaryIO, within: Range | None) -> int:
    from analytics.extract import write

    total = extract.count(table, within)
    with progress(table) as told:
        return write(extract, table, form, file, within, lambda done: told(done, total))


def _export_folder(extract: Extract, tables: list[str], form: Form, folder: Path, within: Range | None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CalltallyError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    for table in tables:
        path = folder / f"{table}.{form}"
        with whole_file(path) as file:
            rows = _export(extract, table, form, file, within)
        say(f"{rows:,} rows in {path}")


def _export_workbook(extract: Extract, tables: list[str], path: Path, within: Range | None) -> None:
    from analytics.exports import workbook
    from analytics.extract import sheet

    with whole_file(path) as file:
        file.write(workbook({table: sheet(extract, table, within) for table in tables}))
    say(f"{len(tables)} tables in {path}")


def _by_ending(path: Path | None, known: type[Known]) -> Known | None:
    ending = path.suffix[1:].lower() if path is not None else ""
    return next((form for form in known if form.value == ending), None)


def _refuse_terminal(path: Path) -> None:
    if str(path) == "-" and sys.stdout.isatty():
        raise typer.BadParameter("This form is no text for a terminal: name a file.", param_hint="-o")


def _require_folder(path: Path) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{path} is no file that could be made: its folder must exist.", param_hint="-o")
