"""Runs the dashboard's own web server, with the settings of `streamlit.toml`."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from calls.errors import SettingsError
from calls.settings import Settings

HERE = Path(__file__).parent


def run(settings: Settings) -> None:
    """Serve the pages until SIGINT or SIGTERM. Raises SettingsError where that would show them to strangers."""
    _refuse_strangers(settings)
    from streamlit.web import bootstrap

    options = dict(_flat(tomllib.loads((HERE / "streamlit.toml").read_text(encoding="utf-8"))))
    options |= {
        "server.address": settings.dashboard_host,
        "server.port": settings.dashboard_port,
        "browser.serverPort": settings.dashboard_port,
    }
    flags = {name.replace(".", "_"): value for name, value in options.items()}
    bootstrap.load_config_options(flags)
    bootstrap.run(str(HERE / "app.py"), False, [], flags)


def _refuse_strangers(settings: Settings) -> None:
    if _is_loopback(settings.dashboard_host):
        return
    raise SettingsError(
        f"The dashboard would be open to everybody on {settings.dashboard_host}. Bind it to 127.0.0.1 "
        "(dashboard_host) and put a proxy with a login in front of it."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
