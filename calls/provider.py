"""What a provider is: one frozen record at the end of one module in `calls/providers/`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import calls.providers
from calls.errors import SettingsError
from calls.model import CallEvent, Connection, Delivery
from calls.signing import Scheme


class Naming(NamedTuple):
    """Of what a delivery is: what the first event that `normalise` makes of it says."""

    event: str
    org: str
    call_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A platform that sends us webhooks: how it signs, and what its deliveries mean."""

    name: str
    """One word everywhere: module, settings key, sample folder, test id."""
    title: str
    docs_url: str
    scheme: Scheme
    normalise: Callable[[Delivery], list[CallEvent]]
    """Pure: no clock, no I/O, no randomness. Raises PayloadMalformed for a body that cannot be understood."""
    naming: Callable[[Delivery], Naming] | None = None
    """The same names as `normalise` gives, at a third of its price, for who only sorts deliveries. It may name what
    `normalise` refuses; raises PayloadMalformed too. Where it is None, `normalise` is asked."""
    signed_id: Callable[[bytes], bytes] | None = None
    """The id inside the body that the signature covers, where it covers an id. Raises PayloadMalformed."""
    kept_headers: frozenset[str] = frozenset()
    """Request headers, in lower case, that are kept with a delivery beside `content-type` and `user-agent`."""
    answers_inbound: bool = False
    """Whether the platform asks, while a call waits, what to do with it (`call_inbound`)."""
    events: frozenset[str] = field(default_factory=frozenset)
    """The events that the platform documents, in its own words; others are taken too. Each has a sample."""
    sends: frozenset[str] = field(default_factory=frozenset)
    """Columns of `calls` and names of list tables (`call_analysis`, `leads`, ...) that this platform can fill; others
    are "not available"."""
    connections: frozenset[Connection] = frozenset(Connection)
    """What the platform can say of whom a call reached: a share of what it never says is "not available"."""
    judges: bool = False
    """Whether its own judge tells if a call reached its aim: the criterion that the settings name is then the call's
    `result`, and a booking or a disposition is not."""
    connect: str = ""
    """Where to click and what to paste to connect the platform: Markdown, `{url}` stands for the webhook address."""

    @property
    def samples(self) -> Path:
        """The folder of sample bodies and expected events."""
        module = importlib.import_module(f"{calls.providers.__name__}.{self.name}")
        return Path(str(module.__file__)).parent / "samples" / self.name


@cache
def discover() -> MappingProxyType[str, Provider]:
    """Every provider by name, found by walking `calls/providers/`."""
    found = {}
    for module in pkgutil.iter_modules(calls.providers.__path__):
        provider: Provider = importlib.import_module(f"calls.providers.{module.name}").provider
        found[provider.name] = provider
    return MappingProxyType(dict(sorted(found.items())))


def named(name: str) -> Provider:
    """The provider of that name. Raises SettingsError that lists the known ones."""
    try:
        return discover()[name]
    except KeyError:
        known = ", ".join(discover())
        raise SettingsError(f"There is no provider '{name}'. Known are: {known}.") from None
