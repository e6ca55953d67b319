"""The `calltally` command as a person runs it: in a folder with real data, as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import cast

import httpx
import msgspec

from analytics.store import Store
from calls.journal import Append, Journal, NewDelivery, NewNotice
from calls.model import Rules, Trust, Verdict, delivery_id
from calls.provider import named
from calls.traffic import one_call
from streams.rebuild import rebuild
from tests.forking import Calltally, Surroundings, forked, run_calltally
from tests.journalling import Answers, child, said

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 30.0
NOW = 1_795_000_000_000_000
MINUTE = 60_000_000
SECRETS = {
    "synthflow": "Vq8rZ2mK0pTn4xWc", "inboundflow": "h7Lw1sBy5dGk9fRe", "aisync": "u3Nc6jQa8vXz0oPi",
    "callsync": "e2Mt9gYh4kSb7lUd",
}  # fmt: skip


def settings_file(folder: Path, *, ports: Sequence[int] = (1, 1, 1), more: str = "") -> None:
    """A calltally.toml with a source of each provider; nothing listens at port 1."""
    lines = [more] + [
        f"{name} = {port}" for name, port in zip(("ingest_port", "sql_port", "dashboard_port"), ports, strict=True)
    ]
    for name, secret in SECRETS.items():
        lines += [f"[sources.{name}]", f'secrets = ["{secret}"]']
    (folder / "calltally.toml").write_text("\n".join(lines) + "\n")
    (folder / "calltally.toml").chmod(0o600)


def deliveries(count: int, *, seed: int = 1, newest_at: int = NOW) -> list[NewDelivery]:
    """What the four platforms send for that many calls, a minute apart, the newest last."""
    dice = Random(seed)
    found = []
    for number in range(count):
        source = list(SECRETS)[number % len(SECRETS)]
        ended_at = newest_at - (count - number) * MINUTE
        for post in one_call(named(source), dice=dice, ended_at=ended_at):
            found.append(delivery(source, post.body, ended_at + int(post.after_s * 1_000_000)))
    return found


def delivery(source: str, body: bytes, received_at: int, headers: Mapping[str, str] | None = None) -> NewDelivery:
    return NewDelivery(
        source=source, provider=source, org="", body=body,
        headers={"content-type": "application/json", **(headers or {})},
        received_at=received_at, trust=Trust.B, id=delivery_id(source, body),
    )  # fmt: skip


def refusal(source: str, at: int, detail: str, *, reason: str = "signature_wrong") -> NewNotice:
    return NewNotice(
        source=source, provider=source, verdict=Verdict.REFUSED, reason=reason, detail=detail, id=None,
        bytes=9, count=1, received_at=at,
    )  # fmt: skip


def journal(folder: Path, records: Sequence[NewDelivery | NewNotice]) -> None:
    """Append to the journal of a folder."""
    answers = Answers()
    opened = Journal(folder / "data" / "journal.sqlite", on_committed=answers)
    try:
        for record in records:
            opened.append(Append(record))
        answers.wait_durable(len(records))
    finally:
        opened.close()


def stock(folder: Path, calls: int = 40, *, more: Sequence[NewDelivery | NewNotice] = ()) -> None:
    """A data folder with that many calls in journal and store."""
    settings_file(folder)
    journal(folder, [*deliveries(calls), *more])
    rebuild(folder / "data" / "journal.sqlite", folder / "data" / "store.duckdb", Rules())


def stock_of_clients(folder: Path, orgs: Mapping[str, str], calls: int = 24) -> None:
    """A data folder with that many calls; each source's are those of a client of its own, its org."""
    settings_file(folder)
    journal(folder, [msgspec.structs.replace(one, org=orgs.get(one.source, "")) for one in deliveries(calls)])
    rebuild(folder / "data" / "journal.sqlite", folder / "data" / "store.duckdb", Rules())


def store_of(folder: Path) -> Store:
    return Store.open(folder / "data" / "store.duckdb", rules=Rules())


def run(
    folder: Path, *words: str, stdin: str | bytes = "", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `calltally` there, as a process of its own; no traceback may come of anything."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_bytes(stdin.encode() if isinstance(stdin, str) else stdin)
        process = forked(run_calltally, Surroundings(folder, environment(environ), *files), words)
        process.join(60)
        if process.exitcode is None:
            process.kill()
        done = subprocess.CompletedProcess(words, process.exitcode or 0, files[1].read_bytes(), files[2].read_bytes())
    assert process.exitcode is not None, f"{words} did not end: {done.stderr.decode()}"
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def answered(folder: Path, words: Sequence[str], answers: Sequence[str]) -> str:
    """Run `calltally` there at a terminal, where each answer is typed when it is asked for; what the terminal shows."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words], cwd=folder, env=environment(),
        stdin=its, stdout=its, stderr=its, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    shown = b""
    waiting = list(answers)
    try:
        while chunk := _read_terminal(ours):
            shown += chunk
            # The blank is the last of a question; what is typed before a hidden one is dropped.
            if waiting and shown.endswith(b": "):
                os.write(ours, waiting.pop(0).encode() + b"\n")
        process.wait(DEADLINE_S)
    finally:
        process.kill()
        os.close(ours)
    return shown.decode()


def _read_terminal(terminal: int) -> bytes:
    readable, _, _ = select.select([terminal], [], [], DEADLINE_S)
    try:
        return os.read(terminal, 4096) if readable else b""
    except OSError:
        # What Linux says where the other side was closed.
        return b""


def told(done: subprocess.CompletedProcess[bytes], code: int = 0) -> str:
    """What a command that ended with that code wrote on stdout."""
    assert done.returncode == code, (done.returncode, done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode()


def rows(done: subprocess.CompletedProcess[bytes], code: int = 0) -> list[dict[str, object]]:
    """The array of objects that a command wrote."""
    return cast("list[dict[str, object]]", json.loads(told(done, code)))


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Another process has the store open meanwhile."""
    script = """
import sys
from pathlib import Path
import cli.main
from analytics.store import Store
from calls.model import Rules
store = Store.open(Path(sys.argv[1]), rules=Rules())
print("open")
sys.stdin.readline()
"""
    with child(script, folder / "data" / "store.duckdb") as process:
        assert said(process) == "open"
        yield


@contextmanager
def running(folder: Path, *processes: str, ready: bool = True) -> Iterator[dict[str, Calltally]]:
    """`calltally ingest` and `worker` there, until they are ready; stopped at the end."""
    started: dict[str, Calltally] = {}
    try:
        for name in processes:
            started[name] = Calltally(folder, [name], environment(), folder / f"{name}.log")
        for name in processes if ready else ():
            _await_ready(folder, name, started[name])
        yield started
    finally:
        for process in started.values():
            process.send_signal(signal.SIGTERM)
        for process in started.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait(15)


def ports_of(folder: Path) -> dict[str, int]:
    import tomllib

    settings = tomllib.loads((folder / "calltally.toml").read_text())
    return {"ingest": settings["ingest_port"], "worker": settings["sql_port"]}


def _await_ready(folder: Path, name: str, process: Calltally) -> None:
    address = f"http://127.0.0.1:{ports_of(folder)[name]}/readyz"
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / f"{name}.log").read_text()
        try:
            if httpx.get(address, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{name} was not ready: {(folder / f'{name}.log').read_text()}")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of this process, without what it says about Calltally."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLTALLY_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **(more or {})}
