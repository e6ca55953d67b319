"""Who is signed in: a cookie that we signed, valid for some hours, and what was signed out before its time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LASTS_S: Final = 12 * 3600
_TOKEN: Final = re.compile("([0-9a-f]{32})[.]([0-9]{1,12})[.]([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Session:
    """One signing in."""

    id: str
    expires_at: int
    """Seconds since 1970."""


class Sessions:
    """Makes and checks the cookie's value; whatever changes the key ends all sessions."""

    def __init__(self, key: bytes, *, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now
        self._signed_out: dict[str, int] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}

    def begin(self) -> str:
        """The cookie's value of a new session."""
        return self._signed(Session(secrets.token_hex(16), int(self._now()) + LASTS_S))

    def find(self, token: str) -> Session | None:
        """The session of a cookie; None where it is forged, over, or signed out."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        session = Session(found[1], int(found[2]))
        genuine = hmac.compare_digest(self._signed(session).encode(), token.encode())
        if not genuine or self.left_s(session) <= 0 or session.id in self._signed_out:
            return None
        return session

    def left_s(self, session: Session) -> float:
        """For how long it is still valid."""
        return session.expires_at - self._now()

    def end(self, session: Session) -> None:
        """Sign out: the cookie is void from now on, wherever it is, and what is open under it is told."""
        now = self._now()
        self._signed_out = {one: until for one, until in self._signed_out.items() if until > now}
        self._signed_out[session.id] = session.expires_at
        for watcher in self._watchers.pop(session.id, ()):
            watcher.set()

    def watch(self, session: Session) -> asyncio.Event:
        """What is set when the session is signed out; give it back with `unwatch`."""
        watcher = asyncio.Event()
        self._watchers.setdefault(session.id, set()).add(watcher)
        return watcher

    def unwatch(self, session: Session, watcher: asyncio.Event) -> None:
        watchers = self._watchers.get(session.id)
        if watchers is not None:
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[session.id]

    def _signed(self, session: Session) -> str:
        said = f"{session.id}.{session.expires_at}"
        return f"{said}.{hmac.new(self._key, said.encode(), hashlib.sha256).hexdigest()}"
