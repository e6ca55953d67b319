"""Asking: `calltally sql`, `status` and `metrics`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import msgspec
import typer

from calls import settings as all_settings
from calls.errors import CalltallyError
from cli import panels
from cli.asking import asking
from cli.narrowed import Agent, Asked, Org, Provider, only
from cli.output import Format, put, say, show, show_table
from cli.period import From, To, Zone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.answer import Answer
    from analytics.metric import Metric
    from calls.settings import Settings

app = typer.Typer()


class SqlFormat(StrEnum):
    """Forms of a query's answer."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class StatusFormat(StrEnum):
    """Forms of the status."""

    TABLE = "table"
    JSON = "json"


class MetricsFormat(StrEnum):
    """Forms of the dictionary of metrics, and of their values."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "md"


class _Rows(msgspec.Struct):
    rows: list[dict[str, object]]


class _RawRows(msgspec.Struct):
    rows: msgspec.Raw


class Partly(StrEnum):
    """How a partly met result counts in success rates."""

    STRICT = "strict"
    HALF = "half"
    LENIENT = "lenient"


@app.command(rich_help_panel=panels.ASK)
def sql(
    query: Annotated[str, typer.Argument(help="One query, or '-' to read it from standard input.", show_default=False)],
    form: Annotated[
        SqlFormat | None, typer.Option("--format", help="Default: what the ending of -o says, else table.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="name=value for a $name of the query; may be repeated.")
    ] = None,
) -> None:
    """Ask DuckDB: one read-only query over calls, call_analysis, call_variables and the other tables.

    The worker that runs answers; where none does, the store's file is opened for the moment. `SHOW TABLES` lists the
    tables, `FROM schema_columns` says what each column means.

    Example: calltally sql "SELECT connection, count(*) AS calls FROM calls WHERE provider = $p GROUP BY ALL" --param
    p=synthflow --format csv
    """
    from analytics.client import ask

    params = _parameters(param or [])
    chosen = form or _form_of(output)
    if chosen is SqlFormat.PARQUET and output is None and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is no text for a terminal: name a file with -o.", param_hint="--format")
    settings = all_settings.load_without_secrets()
    answer = ask(_text(query), params, settings=settings)
    if answer.truncated:
        say(
            f"Cut off: these are the first {answer.table.num_rows:,} rows. Narrow the query, or see `calltally export` "
            "for whole tables."
        )
    if chosen is SqlFormat.TABLE and output is None:
        show_table(_rows(answer), answer.table.column_names)
        return
    put(_encoded(answer, chosen), output)
    if output is not None and str(output) != "-":
        say(f"{answer.table.num_rows:,} rows in {output}")


@app.command(rich_help_panel=panels.ASK)
def status(
    form: Annotated[StatusFormat, typer.Option("--format", help="How to print.")] = StatusFormat.TABLE,
) -> None:
    """What runs, how far it is, when each source last sent, and what waits for you.

    Works whether or not anything runs: journal and store are then read from disk. What cannot be read is a dash, in
    JSON null. Exit code 1 where something that runs is not well, or a file cannot be read.

    Example: calltally status --format json
    """
    from dataclasses import asdict

    from cli.state import lines, look, source_rows

    now = datetime.now(UTC)
    found = look(all_settings.load())
    if form is StatusFormat.JSON:
        show([asdict(found)], Format.JSON)
    else:
        for name, words in lines(found, now):
            typer.echo(f"{name:12}  {words}")
        typer.echo()
        show(source_rows(found, now), Format.TABLE)
    problems = found.problems()
    for problem in problems:
        say(problem)
    raise typer.Exit(1 if problems else 0)


@app.command(rich_help_panel=panels.ASK)
def metrics(
    name: Annotated[str | None, typer.Argument(help="Show the values of this one; without it, the dictionary.")] = None,
    start: From = "7d",
    end: To = "now",
    zone: Zone = "UTC",
    bucket: Annotated[str, typer.Option(help="15 minutes, hour, day, week, month, or all for one value.")] = "all",
    by: Annotated[str | None, typer.Option(help="A value for each of this column: provider, agent_id, ...")] = None,
    partial: Annotated[Partly, typer.Option(help="How a partly met aim counts: not, half, or as met.")] = Partly.STRICT,
    provider: Provider = None,
    agent: Agent = None,
    org: Org = None,
    form: Annotated[MetricsFormat, typer.Option("--format", help="How to print.")] = MetricsFormat.TABLE,
) -> None:
    """The dictionary of metrics, or the values of one. A share comes with its n and its 95 % interval (low, high).

    Example: calltally metrics connected --from 30d --bucket day --by provider --zone Europe/Berlin
    """
    from analytics.metric import catalogue

    settings = all_settings.load_without_secrets()
    known = catalogue(settings.data_dir / "metrics")
    if name is None:
        _print([_described(metric) for metric in known.values()], form)
        return
    if name not in known:
        raise typer.BadParameter(_unknown(name, known), param_hint="NAME")
    span = (start, end, zone)
    _print(_values(settings, known[name], span, bucket, by, partial, Asked(provider, agent, org)), form)


def _text(query: str) -> str:
    if query != "-":
        return query
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise CalltallyError(f"The query on standard input is not UTF-8 text: {error.reason}.") from None


def _parameters(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise typer.BadParameter(f"'{text}' is not of the form name=value.", param_hint="--param")
        found[name] = value
    return found


def _form_of(output: Path | None) -> SqlFormat:
    ending = output.suffix[1:].lower() if output is not None else ""
    if ending in set(SqlFormat):
        return SqlFormat(ending)
    return SqlFormat.TABLE if output is None else SqlFormat.CSV


def _rows(answer: Answer) -> list[dict[str, object]]:
    from analytics.answer import to_json

    return msgspec.json.decode(to_json(answer), type=_Rows).rows


def _encoded(answer: Answer, form: SqlFormat) -> bytes:
    import pyarrow as pa

    from analytics.answer import to_json
    from analytics.exports import Form, to_bytes

    if form is SqlFormat.JSON:
        return bytes(msgspec.json.decode(to_json(answer), type=_RawRows).rows) + b"\n"
    try:
        return to_bytes(answer.table, Form(SqlFormat.CSV if form is SqlFormat.TABLE else form))
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise CalltallyError(
            f"A column cannot be written as {form} ({error}). Cast it in the query, as in column::VARCHAR, or use json."
        ) from error


def _values(
    settings: Settings,
    metric: Metric,
    span: tuple[str, str, str],
    bucket: str,
    by: str | None,
    partial: Partly,
    asked: Asked,
) -> list[dict[str, object]]:
    from analytics.metric import Kind, Partial, interval
    from cli.period import view

    start, end, zone = span
    with asking(settings) as ask:
        filters = view(start, end, zone=zone, only=only(ask, asked), now=datetime.now(UTC)).filters
        text, params = metric.sql(filters, bucket=bucket, slice_by=by, partial=Partial(partial))
        answer = ask(f'{text}\nORDER BY bucket, "slice"', params)
    rows = []
    for row in answer.to_pylist():
        at = row["bucket"]
        # With its offset, so that it is the day that was asked for and still one moment.
        told = {
            "bucket": at.astimezone(ZoneInfo(zone)).isoformat() if at is not None else None,
            **{key: row[key] for key in list(row)[1:]},
        }
        if metric.kind is Kind.SHARE:
            base = float(row["denominator"] or 0)
            low, high = interval(float(row["numerator"] or 0), base) if base else (None, None)
            told |= {"low": low, "high": high}
        empty = [key for key, needed in (("bucket", bucket != "all"), ("slice", by is not None)) if not needed]
        rows.append({key: _number(value) for key, value in told.items() if key not in empty})
    return rows


def _number(value: object) -> object:
    """Shares to six digits: more of them would be noise."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else round(value, 6)
    return value


def _described(metric: Metric) -> dict[str, object]:
    return {
        "name": metric.name,
        "title": metric.title,
        "kind": metric.kind.value,
        "unit": metric.unit,
        "better": metric.better.value,
        "about": metric.about,
    }


def _print(rows: list[dict[str, object]], form: MetricsFormat) -> None:
    import pyarrow as pa

    from analytics.exports import Form, to_bytes

    if form is MetricsFormat.MARKDOWN:
        put(to_bytes(pa.Table.from_pylist(rows), Form.MARKDOWN), None)
    else:
        show(rows, Format(form))


def _unknown(name: str, known: Mapping[str, Metric]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else " `calltally metrics` lists them."
    return f"There is no metric '{name}'.{hint}"
