"""`calltally doctor`: looks at everything that can be wrong, and says for each what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calls import settings as all_settings
from calls.errors import SettingsError
from cli import panels
from cli.output import Format, printable, progress, say, show

if TYPE_CHECKING:
    from cli.check import Finding

app = typer.Typer()


@app.command(rich_help_panel=panels.CARE)
def doctor(
    inbound: Annotated[
        bool,
        typer.Option("--inbound", help="Ask the running ingest as a waiting call would; leaves one row in deliveries."),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Check settings, secrets, ports, disk, clock, journal, store, and sign a round trip per source.

    Changes nothing and makes no calls up. Each finding names its cause and what to do. Exit code 1 where something is
    wrong or a warning, 0 otherwise.

    Example: calltally doctor
    """
    found = list(_findings(inbound))
    if form is Format.TABLE:
        for name, finding in found:
            mark = finding.level.upper() if finding.bad else finding.level
            typer.echo(f"{mark:8}{name:12}{printable(finding.cause)}")
            if finding.fix:
                typer.echo(f"{'':20}-> {printable(finding.fix)}")
    else:
        rows = [{"check": name, "level": one.level.value, "cause": one.cause, "fix": one.fix} for name, one in found]
        show(rows, form)
    bad = sum(finding.bad for _, finding in found)
    say(f"{bad} of {len(found)} findings need something done." if bad else "Nothing is wrong.")
    raise typer.Exit(1 if bad else 0)


def _findings(inbound: bool) -> Iterator[tuple[str, Finding]]:
    from cli.check import Finding, Level, Patient, checks, examined

    try:
        settings = all_settings.load()
    except SettingsError as error:
        for line in error.message.splitlines():
            yield "settings", Finding(Level.WRONG, line, "Nothing starts until this is mended; see README, Settings.")
        yield "settings", Finding(Level.NOTE, "The other checks need settings that can be read, and were left out.")
        return
    where = Path(all_settings.FILE_NAME)
    yield (
        "settings",
        Finding(
            Level.OK,
            f"{where.resolve()} is well." if where.exists() else f"There is no {where} here; the defaults hold.",
        ),
    )
    patient = Patient(settings, Path(), time.time_ns() // 1000, ask_inbound=inbound)
    with progress("checks") as told:
        for number, (name, check) in enumerate(all_checks := list(checks().items()), 1):
            for finding in examined(check, patient):
                yield name.replace("_", " "), finding
            told(number, len(all_checks))
