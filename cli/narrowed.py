"""Which calls a command is asked about: of which platforms, agents and clients, told apart from misspelt ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from analytics.query import Parameters

Provider = Annotated[list[str] | None, typer.Option(help="Only this platform; may be repeated.")]
Agent = Annotated[list[str] | None, typer.Option(help="Only this agent, by id or name; may be repeated.")]
Org = Annotated[list[str] | None, typer.Option(help="Only this client, the org of its sources; may be repeated.")]

NAMED_MOST = 8
"""So many of what there is are named where something is misspelt."""
NAME_MOST = 60

AGENTS = """
SELECT agent_id, arg_max(agent_name, last_received_at) FILTER (agent_name <> '') AS name
FROM calls WHERE agent_id IS NOT NULL GROUP BY agent_id
UNION ALL
SELECT DISTINCT agent_id, NULL FROM rollup_variables
WHERE agent_id IS NOT NULL AND agent_id NOT IN (SELECT agent_id FROM calls WHERE agent_id IS NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say, as it was typed."""

    provider: list[str] | None = None
    agent: list[str] | None = None
    org: list[str] | None = None


def only(ask: Callable[[str, Parameters], pa.Table], asked: Asked) -> Mapping[str, tuple[str, ...]]:
    """The allowed values by column. Raises typer.BadParameter for what the store does not know."""
    found: dict[str, tuple[str, ...]] = {}
    if asked.provider:
        found["provider"] = _providers(ask, asked.provider)
    if asked.agent:
        found["agent_id"] = _agents(agent_names(ask), asked.agent)
    if asked.org:
        found["org"] = clients(_values(ask, "SELECT DISTINCT org AS value FROM calls"), asked.org)
    return found


def agent_names(ask: Callable[[str, Parameters], pa.Table]) -> dict[str, str]:
    """Every agent's name by its id; of one without a name, the id."""
    return {str(row["agent_id"]): str(row["name"] or row["agent_id"]) for row in ask(AGENTS, {}).to_pylist()}


def clients(known: Iterable[str], given: Iterable[str]) -> tuple[str, ...]:
    """The orgs asked for. Raises typer.BadParameter for one that is not known; an empty one is that of no client."""
    orgs = {org: org for org in known}
    for org in given:
        if org not in orgs:
            raise _unknown("a client", org, orgs, "--org")
    return tuple(given)


def _providers(ask: Callable[[str, Parameters], pa.Table], given: list[str]) -> tuple[str, ...]:
    from analytics.metric import titles

    known = {name: name for name in [*titles(), *_values(ask, "SELECT DISTINCT provider AS value FROM rollup_calls")]}
    for name in given:
        if name not in known:
            raise _unknown("a platform", name, known, "--provider")
    return tuple(given)


def _agents(names: Mapping[str, str], given: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for text in given:
        of_name = [agent for agent, name in names.items() if name.casefold() == text.casefold()]
        if text not in names and not of_name:
            raise _unknown("an agent", text, names, "--agent")
        found += [text] if text in names else of_name
    return tuple(found)


def _values(ask: Callable[[str, Parameters], pa.Table], sql: str) -> list[str]:
    return [str(value) for value in ask(sql, {}).column("value").to_pylist()]


def _unknown(what: str, given: str, known: Mapping[str, str], option: str) -> typer.BadParameter:
    """The error that names what there is instead, the most alike first; `known` are names by what is asked for."""

    def likeness(value: str) -> float:
        return max(
            difflib.SequenceMatcher(None, given.casefold(), said.casefold()).ratio() for said in (value, known[value])
        )

    there = sorted(filter(None, known), key=lambda value: (-likeness(value), value))
    shown = ", ".join(_shown(value, known[value]) for value in there[:NAMED_MOST])
    more = f" and {len(there) - NAMED_MOST:,} more" if len(there) > NAMED_MOST else ""
    return typer.BadParameter(
        f"The store holds no call of {what} '{printable(given)}'. There are: {shown or 'none'}{more}.",
        param_hint=option,
    )


def _shown(value: str, name: str) -> str:
    text = printable(value if value == name else f"{name} ({value})")
    return text if len(text) <= NAME_MOST else text[: NAME_MOST - 1] + "\N{HORIZONTAL ELLIPSIS}"
