"""Whether the store can be asked, belongs to this journal and keeps up with it."""

from __future__ import annotations

from collections.abc import Iterator

from calls.errors import QueryError
from cli.check import Finding, Level, Patient
from cli.probe import State
from cli.state import how_far, look

LAG_WARN = 1_000


def check(patient: Patient) -> Iterator[Finding]:
    """Opens it, or asks the worker; what made it; how far it is."""
    from analytics.client import ask
    from analytics.fingerprint import fingerprint

    settings = patient.settings
    try:
        made = ask("SELECT made_by FROM schema_version", settings=settings).table.column(0).to_pylist()
    except QueryError as error:
        if error.code == "unreachable" and not settings.store_path.exists():
            yield Finding(Level.NOTE, "There is no store yet; the worker makes it when it starts.")
            return
        raise
    if made != [fingerprint(settings.rules)]:
        yield Finding(
            Level.NOTE,
            "The store was made with other rules (success_criterion, success, test_numbers) or by other code.",
            "The worker makes it anew from the journal when it next starts; or run `calltally rebuild` now.",
        )
    state = look(settings)
    store, lag = state.store, state.lag
    if store.calls is None or store.dead_letters is None or store.mistakes is None:
        yield Finding(Level.WRONG, store.error or "The store could be asked a moment ago, and cannot any more.")
        return
    if lag is None:
        yield Finding(Level.NOTE, f"The store opens; {how_far(state)}.")
    elif lag > LAG_WARN and patient.worker.state is not State.ABSENT:
        yield Finding(
            Level.WARNING, f"The store is {lag:,} records behind the journal.", "Wait, or see the worker's log for why."
        )
    elif lag:
        yield Finding(Level.OK, f"The store opens; {lag:,} records of the journal wait for the worker.")
    else:
        yield Finding(Level.OK, f"The store opens and holds all of the journal: {store.calls:,} calls.")
    mistakes, others = store.mistakes, store.dead_letters - store.mistakes
    if mistakes:
        yield Finding(
            Level.WARNING,
            f"{mistakes:,} proved deliveries are not understood by a mistake of Calltally, so numbers are incomplete.",
            "Update Calltally, then run `calltally dead retry`.",
        )
    if others:
        yield Finding(
            Level.NOTE,
            f"{others:,} proved deliveries could not be understood, so they count in no number.",
            "calltally dead list",
        )
