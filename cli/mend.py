"""Looking after what is kept: `calltally verify`, `rebuild`, `dead` and `quarantine`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from analytics.cells import plain
from calls import settings as all_settings
from calls.dead_letters import JOURNAL_DAMAGED
from calls.errors import CalltallyError, JournalError, StoreLocked
from cli import panels
from cli.output import Format, printable, progress, put, say, show

if TYPE_CHECKING:
    from calls.journal_row import Record
    from calls.model import Delivery
    from calls.settings import Settings
    from cli.agreement import Comparison
    from streams.apply import Tally

app = typer.Typer()
dead_app = typer.Typer(help="Deliveries that were proved but not understood: list, show, retry.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Deliveries that were not proved genuine: list, retry.", no_args_is_help=True)
app.add_typer(dead_app, name="dead", rich_help_panel=panels.CARE)
app.add_typer(quarantine_app, name="quarantine", rich_help_panel=panels.CARE)

RETRY_WAIT_S = 60.0
LOOK_S = 0.2

Form = Annotated[Format, typer.Option("--format", help="How to print.")]
SourceOption = Annotated[str | None, typer.Option(help="Only those of this source.")]
Limit = Annotated[int, typer.Option(min=1, help="The newest so many.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only the plan is shown.")]


@app.command(rich_help_panel=panels.CARE)
def verify(form: Form = Format.TABLE) -> None:
    """Prove that the numbers are right: roll-ups against calls, calls against events, the store against the journal.

    Reads everything and changes nothing; works while everything runs. Where the journal is on another machine, all but
    that is checked. Exit code 0: all agrees, 1: it does not.

    Example: calltally verify && echo all numbers agree
    """
    from cli import owner

    settings = all_settings.load_without_secrets()
    found = [{"part": "store", "finding": sentence} for sentence in owner.findings(settings)]
    comparison = _compared(settings)
    found += [{"part": "journal", "finding": sentence} for sentence in comparison.findings]
    for note in comparison.notes:
        say(note)
    if form is not Format.TABLE:
        show(found, form, columns=["part", "finding"])
    for row in found if form is Format.TABLE else ():
        typer.echo(f"{row['part']}: {row['finding']}")
    if comparison.made:
        deliveries = sum(comparison.deliveries.values())
        say(
            f"{_number(comparison.records, 'record')} of the journal read, their digests checked; "
            f"{_number(deliveries, 'delivery', 'deliveries')} of {_number(len(comparison.deliveries), 'source')} "
            f"compared with the store; {_number(comparison.lag, 'record')} not applied yet."
        )
    well = "Everything agrees." if comparison.made else "The store agrees with itself."
    say("Something does not agree: see above." if found else well)
    raise typer.Exit(1 if found else 0)


@app.command(rich_help_panel=panels.CARE)
def rebuild() -> None:
    """Make the store again from the journal, beside the present one, which is replaced only when the new one is whole.

    Where the journal lacks its beginning nothing is done. Where it can no longer tell what the present store holds,
    that one is kept beside the new one, and the exit code is 1, as it is for every damaged record.

    One that Kafka fills is moved aside, and the next worker fills a new one from Kafka. Refuses while a worker runs. A
    worker does this by itself where the store is damaged or the rules have changed.

    Example: calltally rebuild
    """
    _rebuild(all_settings.load_without_secrets())


@dead_app.command("list")
def list_dead(
    source: SourceOption = None,
    reason: Annotated[str | None, typer.Option(help="Only those of this reason.")] = None,
    limit: Limit = 100,
    form: Form = Format.TABLE,
) -> None:
    """Deliveries that were proved genuine but could not be understood, the newest first.

    Example: calltally dead list --source aisync --reason not_json
    """
    from analytics.client import ask

    settings = all_settings.load_without_secrets()
    params = {"source": source, "reason": reason, "limit": limit}
    rows = ask(_DEAD, params, settings=settings).table.to_pylist()
    for row in rows:
        at = row["received_at"]
        # A damaged row of the journal does not even tell when it came.
        row["received_at"] = plain(at) if at.year > 1970 else None
    show(rows, form, columns=["position", "received_at", "source", "provider", "reason", "detail"])
    if source and not rows:
        _say_whose(source, ask(_DEAD_SOURCES, settings=settings).table.column("source").to_pylist())
    if len(rows) == limit:
        say(f"These are the newest {limit}; --limit shows more.")


@dead_app.command("show")
def show_dead(
    position: Annotated[int, typer.Argument(min=1, help="Its position, as `calltally dead list` shows it.")],
    body: Annotated[bool, typer.Option("--body", help="Only the body, byte for byte.")] = False,
    form: Form = Format.TABLE,
) -> None:
    """One delivery as it arrived: why it was not understood, the headers that are kept, the raw body.

    Control characters are written out (\\\\x1b), so that nothing in the body can act on the terminal; --body does not.

    Example: calltally dead show 634 --body > body.json
    """
    settings = all_settings.load_without_secrets()
    delivery = _delivery_at(settings, position)
    if body:
        put(delivery.body, None)
        return
    told = _told(delivery, settings)
    if form is not Format.TABLE:
        show([told], form)
        return
    for name, value in told.items():
        if name not in ("headers", "body") and value is not None:
            typer.echo(f"{name:12}  {printable(str(value))}")
    for name, value in delivery.headers.items():
        typer.echo(printable(f"{name}: {value}"))
    typer.echo(f"\n{told['body']}")


@dead_app.command("retry")
def retry_dead(source: SourceOption = None, yes: Yes = False) -> None:
    """Read dead letters again, with the code as it is now: how many would be understood, and then make it so.

    A dead letter keeps its place in the journal, and later events may build on it. So --yes does what
    `calltally rebuild` does, with the worker stopped. A worker that starts with changed code does the same by itself.

    Example: calltally dead retry
    """
    settings = all_settings.load_without_secrets()
    plan, forgiven = _plan_of_dead(settings, source)
    show(plan, Format.TABLE, columns=["source", "reason", "dead", "readable_now"])
    readable = sum(int(str(row["readable_now"])) for row in plan)
    if not readable:
        say("None of them would be understood now." if plan else "There are no dead letters.")
        return
    if not yes:
        many = _number(readable, "delivery", "deliveries")
        say(f"{many} would be understood now. To do it: calltally dead retry --yes")
        return
    _rebuild(settings, forgiven)


@quarantine_app.command("list")
def list_quarantine(source: SourceOption = None, limit: Limit = 100, form: Form = Format.TABLE) -> None:
    """Deliveries that failed verification, the newest first; they are kept for 30 days and count in no number.

    Example: calltally quarantine list --source synthflow
    """
    from collections import deque

    from cli import quarantined

    settings = all_settings.load_without_secrets()
    kept: deque[dict[str, object]] = deque(maxlen=limit)
    for one in quarantined.held(settings, source):
        row = {"id": one.id, "received_at": _iso(one.received_at), "source": one.source, "reason": one.reason}
        kept.appendleft({**row, "count": one.count, "bytes": len(one.body), "detail": one.detail})
    show(list(kept), form, columns=["id", "received_at", "source", "reason", "count", "bytes", "detail"])
    if source and not kept:
        _say_whose(source, quarantined.counts(settings))
    if len(kept) == limit:
        say(f"These are the newest {limit}; --limit shows more.")


@quarantine_app.command("retry")
def retry_quarantine(source: SourceOption = None, yes: Yes = False) -> None:
    """Verify again what is held, with the secrets as they are now; what passes becomes a delivery of its own time.

    Ingest does so by itself when a secret in calltally.toml changes.

    Example: calltally quarantine retry --source synthflow --yes
    """
    from cli import quarantined

    settings = all_settings.load()
    with progress("verified") as told:
        total = sum(rows for name, (rows, _) in quarantined.counts(settings).items() if source in (None, name))
        plan = quarantined.outlook(settings, source, lambda done: told(done, total))
    shown = [
        {
            "source": one.source,
            "held": one.held,
            "would_pass": one.would_pass,
            "still_refused": ", ".join(f"{reason} {number}" for reason, number in one.reasons.items()),
        }
        for one in plan
    ]
    if shown:
        show(shown, Format.TABLE)
    passing = sum(one.would_pass for one in plan)
    if not passing:
        say("None of them would pass." if plan else "Nothing is held.")
    elif not yes:
        say(f"{_number(passing, 'delivery', 'deliveries')} would pass. To do it: calltally quarantine retry --yes")
    else:
        _retry_held(settings, source)


def _compared(settings: Settings) -> Comparison:
    from calls.journal_reader import JournalReader
    from cli.agreement import compare, without_journal
    from cli.asking import asking

    if not settings.journal_path.exists():
        with asking(settings) as ask:
            return without_journal(settings.journal_path, ask, is_store_here=settings.store_path.exists())
    reader = JournalReader(settings.journal_path)
    try:
        with asking(settings) as ask, progress("journal") as told:
            return compare(reader, ask, told)
    finally:
        reader.close()


def _rebuild(settings: Settings, forgiven: Collection[str] = ()) -> None:
    from streams import refill
    from streams.rebuild import rebuild as rebuild_store

    _quiet()
    try:
        if refill.is_filled_from_kafka(settings):
            aside = refill.begin_anew(settings, forgiven=forgiven)
            say(f"The store is now {aside.name}. The next `calltally worker --kafka` fills a new one from Kafka.")
            return
        with progress("journal") as told:
            paths = settings.journal_path, settings.store_path
            done = rebuild_store(*paths, settings.rules, progress=told, forgiven=forgiven)
    except StoreLocked as error:
        raise StoreLocked(
            f"{error.message} For this, stop it first (Ctrl-C where `calltally up` runs), then repeat."
        ) from error
    tally = done.tally
    say(f"{_number(tally.records, 'record')} applied, {_number(tally.events, 'event')}.{_dead(tally)}")
    if done.kept_as is not None:
        say(
            f"The store before it may hold what the journal can no longer tell, so it is kept as {done.kept_as}. Put "
            f"that back as {settings.store_path.name}, or put back a whole copy of the journal and rebuild."
        )
    if done.kept_as is not None or tally.dead_letters[JOURNAL_DAMAGED]:
        raise typer.Exit(1)


def _quiet() -> None:
    """What became of each delivery is told once, at the end."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _dead(tally: Tally) -> str:
    if not tally.dead_letters:
        return ""
    reasons = ", ".join(f"{reason} {number}" for reason, number in tally.dead_letters.most_common())
    return f" Not understood: {_number(tally.dead_letters.total(), 'delivery', 'deliveries')} ({reasons})."


def _delivery_at(settings: Settings, position: int) -> Delivery:
    from calls.model import Delivery, Notice

    found = next(_records(settings, [position]), None)
    if found is None:
        raise CalltallyError(f"The journal does not reach to position {position}.")
    if not isinstance(found, Delivery):
        what = f"a request was {found.verdict} then" if isinstance(found, Notice) else f"it is damaged ({found.reason})"
        raise CalltallyError(f"Position {position} of the journal holds no readable delivery: {what}.")
    return found


def _records(settings: Settings, positions: list[int]) -> Iterator[Record]:
    """The records at these positions, as far as the journal has them."""
    from calls.journal_reader import JournalReader

    reader = JournalReader(settings.journal_path)
    try:
        first, last = reader.first_position(), reader.last_position()
        for position in positions:
            if first <= position <= last:
                yield reader.read(position - 1, rows=1)[0]
    finally:
        reader.close()


def _told(delivery: Delivery, settings: Settings) -> dict[str, object]:
    from calls.crashes import Crashes
    from calls.dead_letters import CRASHED_WORKER
    from calls.model import DeadLetter
    from streams.steps import interpret

    crash = Crashes(settings.store_path).deadly.get(delivery.id)
    if crash is None:
        meaning = interpret(delivery)
    else:
        meaning = DeadLetter(reason=CRASHED_WORKER, detail=crash, delivery=delivery)
    if isinstance(meaning, DeadLetter):
        verdict: dict[str, object] = {"reason": meaning.reason, "detail": meaning.detail}
    else:
        verdict = {"reason": None, "detail": f"Understood: {', '.join(timed.event.event for timed in meaning)}."}
    return {
        "position": delivery.position,
        "id": delivery.id,
        "source": delivery.source,
        "provider": delivery.provider,
        "received_at": _iso(delivery.received_at),
        "trust": str(delivery.trust),
        "bytes": len(delivery.body),
        **verdict,
        "headers": delivery.headers,
        "body": _body_text(delivery.body),
    }


def _body_text(body: bytes) -> str:
    """The body for a terminal: line breaks stay, everything else that is not printed is written out."""
    text = body.decode("utf-8", "backslashreplace")
    return "\n".join(printable(line) for line in text.split("\n"))


def _plan_of_dead(settings: Settings, source: str | None) -> tuple[list[dict[str, object]], set[str]]:
    """How many of each kind would be understood, and the ids of those that end no process any more."""
    from analytics.client import ask
    from calls.crashes import Crashes
    from calls.model import DeadLetter, Delivery
    from cli.trial import is_readable
    from streams.steps import interpret

    deadly, forgiven = Crashes(settings.store_path).deadly, set[str]()

    letters = ask(_DEAD_ALL, {"source": source}, settings=settings).table.to_pylist()
    kinds = {row["position"]: (row["source"], row["reason"]) for row in letters}
    dead = Counter(kinds.values())
    readable: Counter[tuple[str, str]] = Counter()
    try:
        with progress("dead letters") as told:
            for number, record in enumerate(_records(settings, list(kinds)), 1):
                if isinstance(record, Delivery):
                    was_deadly = record.id in deadly
                    if is_readable(record) if was_deadly else not isinstance(interpret(record), DeadLetter):
                        readable[kinds[record.position]] += 1
                        forgiven.update([record.id] if was_deadly else [])
                told(number, len(kinds))
    except JournalError as error:
        raise CalltallyError(f"The dead letters cannot be read again: {error.message}") from error
    plan: list[dict[str, object]] = [
        {"source": kind[0], "reason": kind[1], "dead": number, "readable_now": readable[kind]}
        for kind, number in dead.most_common()
    ]
    return plan, forgiven


def _retry_held(settings: Settings, source: str | None) -> None:
    from calls.journal_lock import writer_of
    from cli import quarantined

    retry = quarantined.request(settings, source)
    if writer_of(settings.journal_path) is None:
        say("Ingest does not run; it takes this up when it next starts.")
        return
    deadline = time.monotonic() + RETRY_WAIT_S
    while (done := quarantined.outcome(settings, retry)) is None:
        if time.monotonic() > deadline:
            say("Ingest is still at it. `calltally quarantine list` shows what is left.")
            return
        time.sleep(LOOK_S)
    say(f"{_number(done.accepted or 0, 'delivery', 'deliveries')} accepted, {done.refused or 0} still refused.")


def _say_whose(source: str, others: Iterable[str]) -> None:
    """That there are some, but of other sources: the name may be mistyped."""
    if names := sorted({name for name in others if name} - {source}):
        say(f"None of '{source}'. There are some of: {', '.join(names)}.")


def _number(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _iso(micros: int) -> str:
    return plain(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros))


_DEAD_SOURCES = "SELECT DISTINCT source FROM dead_letters"
_DEAD_ALL = """
SELECT position, source, reason, provider, detail, received_at FROM dead_letters
WHERE coalesce(source = $source, true)
ORDER BY position
"""
_DEAD = """
SELECT position, received_at, source, provider, reason, detail FROM dead_letters
WHERE coalesce(source = $source, true) AND coalesce(reason = $reason, true)
ORDER BY position DESC LIMIT $limit
"""
