"""The `calltally` command: one file per group of commands, found by walking this folder."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import typer

import cli
from calls.errors import CalltallyError, SettingsError

DONE, FOUND_A_PROBLEM, WRONG_USAGE = 0, 1, 2
_APP = re.compile(r"^app = typer\.Typer\(", re.MULTILINE)
"""Read as text: what the other files import would cost every command a quarter of a second, and ingest its memory."""


def build() -> typer.Typer:
    """The command with all its groups: every module of this folder that has an `app`."""
    app = typer.Typer(
        name="calltally",
        help="Call-outcome numbers that can be trusted, live, from the webhooks of AI voice platforms.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    names = [path.stem for path in Path(cli.__path__[0]).glob("*.py") if _APP.search(path.read_text())]
    # First what a newcomer looks for.
    for name in sorted(names, key=lambda name: (name != "up", name)):
        app.add_typer(importlib.import_module(f"cli.{name}").app)
    return app


def run() -> None:
    """Run the command line; what a person did wrong becomes a sentence and an exit code, never a traceback."""
    try:
        try:
            build()(prog_name="calltally")
        finally:
            # Here, where what a full disk says can still be told; at exit Python would print a traceback of its own.
            sys.stdout.flush()
    except SettingsError as error:
        _say(error)
        sys.exit(WRONG_USAGE)
    except CalltallyError as error:
        _say(error)
        sys.exit(FOUND_A_PROBLEM)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong.
        _drop_output()
        sys.exit(DONE)
    except OSError as error:
        # A file that is not there, a full disk, a folder of somebody else's: what the system says, without a traceback.
        where = f"{error.filename}: " if error.filename else ""
        print(f"calltally: {where}{error.strerror or error}.", file=sys.stderr)
        _drop_output()
        sys.exit(FOUND_A_PROBLEM)


def _drop_output() -> None:
    """What could not be written is not tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(error: CalltallyError) -> None:
    print(f"calltally: {error.message}", file=sys.stderr)


if __name__ == "__main__":
    run()
