"""`calltally password`: make the hash of a password for the dashboard."""

from __future__ import annotations

import sys

import typer

from calls.errors import SettingsError
from cli import panels
from cli.output import say

app = typer.Typer()


@app.command(rich_help_panel=panels.CONNECT)
def password() -> None:
    """Hash a password for the dashboard, to be put into the settings.

    Asks for it twice, or takes one line from standard input. Example: calltally password
    """
    from dashboard.password import hashed

    made = hashed(_chosen())
    typer.echo(made)
    say("Put this into calltally.toml and start the dashboard again; whoever is signed in has to sign in anew:")
    say(f'  dashboard_password_hash = "{made}"')
    say("or into the environment or a compose file's .env, with its single quotes:")
    say(f"  CALLTALLY_DASHBOARD_PASSWORD_HASH='{made}'")


def _chosen() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    from getpass import getpass

    first = getpass("Password for the dashboard: ")
    if getpass("Once more: ") != first:
        raise SettingsError("The two differ. Nothing was made; try again.")
    return first
