"""docker-compose.yml as Docker Compose reads it: variables put in, files laid over each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.command import ROOT

COMPOSE = ROOT / "docker-compose.yml"
WITH_FILES = ROOT / "docker-compose.secrets.yml"
_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Z_]+)(?:(?P<how>:?[-?])(?P<word>[^}]*))?\}|(?P<wrong>.?))", re.DOTALL
)


class VariableMissing(Exception):
    """What Compose says, and stops, where a variable is needed."""


@dataclass(frozen=True)
class Service:
    """One service of the file."""

    name: str
    told: Mapping[str, Any]
    environment: Mapping[str, str]

    @property
    def command(self) -> list[str]:
        return [str(word) for word in self.told.get("command", [])]

    @property
    def volumes(self) -> dict[str, str]:
        """What is mounted, by where."""
        mounts = [str(volume).split(":") for volume in self.told.get("volumes", [])]
        return {mount[1]: mount[0] for mount in mounts}


def services(variables: Mapping[str, str], *files: Path) -> dict[str, Service]:
    """The services, later files laid over earlier ones. Raises VariableMissing."""
    found: dict[str, Service] = {}
    for path in files or (COMPOSE,):
        for name, told in read(path, variables)["services"].items():
            before = found.get(name, Service(name, {}, {}))
            environment = {**before.environment, **_environment(told.get("environment", {}), variables)}
            found[name] = Service(name, {**before.told, **told}, environment)
    return found


def read(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """A compose file with its variables put in."""
    told: dict[str, Any] = _put_in(YAML(typ="safe").load(path.read_text(encoding="utf-8")), variables)
    return told


def variables_of(path: Path) -> set[str]:
    """The variables that a compose file asks for; those passed on under their own name included."""
    names = {found["name"] for found in _VARIABLE.finditer(path.read_text(encoding="utf-8")) if found["name"]}
    for service in YAML(typ="safe").load(path.read_text(encoding="utf-8"))["services"].values():
        names |= {name for name, value in service.get("environment", {}).items() if value is None}
    return names


def _environment(told: Mapping[str, object], variables: Mapping[str, str]) -> dict[str, str]:
    passed_on = {name: variables[name] for name, value in told.items() if value is None and name in variables}
    return {**{name: str(value) for name, value in told.items() if value is not None}, **passed_on}


def _put_in(told: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(told, dict):
        return {name: _put_in(value, variables) for name, value in told.items()}
    if isinstance(told, list):
        return [_put_in(value, variables) for value in told]
    return _VARIABLE.sub(lambda found: _value(found, variables), told) if isinstance(told, str) else told


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["escaped"]:
        return "$"
    if found["wrong"] is not None:
        raise ValueError(f"'${found['wrong']}' is no variable; write $$ for a dollar sign")
    value, how = variables.get(found["name"]), found["how"] or ""
    if value is None or (how.startswith(":") and not value):
        if how.endswith("?"):
            raise VariableMissing(f"{found['name']}: {found['word']}")
        return found["word"] or ""
    return value
