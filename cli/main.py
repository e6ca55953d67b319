"""The `calltally` command: one file per group of commands, found by walking this folder."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

import cli
from calls.errors import CalltallyError, SettingsError

DONE, FOUND_A_PROBLEM, WRONG_USAGE = 0, 1, 2


def build() -> typer.Typer:
    """The command with all its groups: every module of this folder that has an `app`."""
    app = typer.Typer(
        name="calltally",
        help="Call-outcome numbers that can be trusted, live, from the webhooks of AI voice platforms.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    for module in pkgutil.iter_modules(cli.__path__):
        group = getattr(importlib.import_module(f"cli.{module.name}"), "app", None)
        if isinstance(group, typer.Typer):
            app.add_typer(group)
    return app


def run() -> None:
    """Run the command line; what a person did wrong becomes a sentence on stderr and an exit code, never a traceback."""
    try:
        build()()
    except SettingsError as error:
        _say(error)
        sys.exit(WRONG_USAGE)
    except CalltallyError as error:
        _say(error)
        sys.exit(FOUND_A_PROBLEM)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong. Without this Python complains at exit.
        sys.stderr.close()
        sys.exit(DONE)


def _say(error: CalltallyError) -> None:
    print(f"calltally: {error.message}", file=sys.stderr)


if __name__ == "__main__":
    run()
