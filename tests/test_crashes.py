"""A delivery that ends the worker's process: it is found, passed over and kept; nothing else is ever taken for one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.client import Client
from analytics.store import Position, Store
from calls.crashes import DEATHS_MAX, UNSIGNED, WARY_PIECE, WARY_RECORDS, Crashes
from calls.errors import QueryError
from calls.journal import NewDelivery
from calls.model import Delivery, Rules, Trust, delivery_id
from calls.settings import load
from streams.announce import Announcer
from streams.apply import Applier
from streams.rebuild import rebuild
from streams.recent import RecentCalls
from streams.worker import Worker
from streams.worker_state import WorkerState
from tests import command
from tests.command import NOW
from tests.journalling import as_read, child, notice
from tests.serving import TOKEN, serving
from tests.storing import everything, rows
from tests.waiting import until

SECOND = 1_000_000
ENDS = 4 + DEATHS_MAX
"""Of a batch, of 100 records of it, of 20, of 4, and some times of the one that ends it."""
PLATFORM = "hazard"
MODULE = '''
"""A platform whose normaliser has a bug that no `except` catches."""

import ctypes

from calls.model import CallEvent, Connection, Delivery, Stage, Trust
from calls.provider import Provider
from calls.reading import identifier, known
from calls.signing import Encoding, Part, Scheme


def normalise(delivery: Delivery) -> list[CallEvent]:
    body = delivery.payload.value
    if body.get("then") == "segfault":
        SEGFAULT
    if body.get("then") == "no memory":
        raise MemoryError("made up")
    return [
        CallEvent(
            event="ended", call_id=identifier(body, "id"), org="", happened_at=delivery.received_at,
            stage=Stage.FINISHED, facts=known(connection=Connection.PERSON),
        )
    ]


provider = Provider(
    name="hazard",
    title="Hazard",
    docs_url="https://hazard.example/webhooks",
    scheme=Scheme(headers=("x-hazard",), signed=(Part.BODY,), encoding=Encoding.HEX, trust=Trust.B),
    normalise=normalise,
    events=frozenset({"ended"}),
    sends=frozenset({"connection"}),
    connect="Paste `{url}`.",
)
'''
BUG, MENDED = "ctypes.string_at(0)", "pass"
MAIN = """
import os, resource
import calls.providers

calls.providers.__path__.append(os.environ["PLATFORMS"])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if __name__ == "__main__":
    import cli.main

    cli.main.run()
"""
WORK = """
import os, resource, sys, threading
from pathlib import Path
import calls.providers
from analytics.store import Store
from calls.model import Rules
from calls.crashes import trace_fatal_errors
from streams.worker import Worker

calls.providers.__path__.append(os.environ["PLATFORMS"])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
folder, last = Path(sys.argv[1]), int(sys.argv[2])
path = folder / "store.duckdb"
trace_fatal_errors(path)
worker = Worker(folder / "journal.sqlite", lambda: Store.open(path, rules=Rules()), Rules(), store_path=path)
worker.open()
thread = threading.Thread(target=worker.run)
thread.start()
while worker.state.position < last and thread.is_alive():
    thread.join(0.05)
worker.stop()
thread.join()
worker.close()
"""


def webhook(number: int, then: str = "go on") -> NewDelivery:
    body = b'{"id": "call-%d", "then": "%s"}' % (number, then.encode())
    return NewDelivery(
        source=PLATFORM, provider=PLATFORM, org="", body=body, headers={}, received_at=NOW + number * SECOND,
        trust=Trust.B, id=delivery_id(PLATFORM, body),
    )  # fmt: skip


# What is known of how processes ended


def records(count: int) -> list[Delivery]:
    found = [as_read(webhook(number), "j1", number) for number in range(1, count + 1)]
    return [one for one in found if isinstance(one, Delivery)]


class Life:
    """One process after another over the same store, of which only the position and the file are real."""

    def __init__(self, folder: Path, journal: Sequence[Delivery], deadly: set[str]) -> None:
        self.path = folder / "store.duckdb"
        self.journal = journal
        self.ends_it = deadly
        self.position = 0
        self.passed_over: list[str] = []

    def live(self, dies_at: int = 0, batch: int = 2_000) -> bool:
        """Apply batches until all is applied, or the process ends; whether it ended in order.

        `dies_at` is the number of the piece at which something else ends it: never while a record is named, since no
        query runs then.
        """
        crashes = Crashes(self.path)
        crashes.begin()
        came = 0
        while self.position < len(self.journal):
            for piece in crashes.pieces(self.journal[self.position : self.position + batch]):
                came += 1
                ids = [one.id for one in piece if isinstance(one, Delivery)]
                if any(one in self.ends_it and one not in crashes.deadly for one in ids):
                    leave_a_sign(self.path)
                    return False
                if came == dies_at and not crashes.is_careful:
                    return False
                self.passed_over += [one for one in ids if one in crashes.deadly]
                self.position += len(piece)
        crashes.relax()
        crashes.end()
        return True


def test_nothing_is_written_while_processes_end_in_order(tmp_path: Path) -> None:
    """A batch is one piece, and the file is that of the start until the end."""
    crashes = Crashes(tmp_path / "store.duckdb")
    for _ in range(2):
        crashes.begin()
        file = next(tmp_path.iterdir())
        before = file.stat().st_ino
        assert list(crashes.pieces(records(5))) == [records(5)]
        crashes.relax()
        assert file.stat().st_ino == before
        assert not crashes.is_careful
        crashes.end()


def test_a_delivery_is_passed_over_after_some_ends_of_its_own(tmp_path: Path) -> None:
    """One end in the midst of a batch, one in each smaller piece, some alone; then all else is applied."""
    journal = records(350)
    life = Life(tmp_path, journal, {journal[249].id})
    ended = [life.live() for _ in range(ENDS + 1)]
    assert ended == [False] * ENDS + [True]
    assert life.passed_over == [journal[249].id]
    assert set(Crashes(life.path).deadly) == {journal[249].id}


@settings(deadline=None, max_examples=40)
@given(
    deadly=st.sets(st.integers(0, 119), max_size=2),
    others=st.lists(st.integers(0, 8), max_size=8),
    batch=st.sampled_from([3, 40, 2_000]),
)
def test_only_what_ends_the_process_is_ever_passed_over(
    tmp_path_factory: pytest.TempPathFactory, deadly: set[int], others: list[int], batch: int
) -> None:
    """Whatever else ends processes, and however often: a query, a person, the kernel."""
    journal = records(120)
    ids = {journal[index].id for index in deadly}
    life = Life(tmp_path_factory.mktemp("life"), journal, ids)
    for dies_at in others:
        life.live(dies_at, batch)
    lives = 0
    while not life.live(batch=batch):
        lives += 1
        assert lives <= ENDS * (len(deadly) + 1)
    assert life.position == len(journal)
    assert set(Crashes(life.path).deadly) == ids == set(life.passed_over)


def test_a_process_that_is_killed_soon_after_each_start_blames_nobody(tmp_path: Path) -> None:
    """In `kills`, seed 5, a worker was killed at its first commit four times in a row, and a record was blamed."""
    journal = records(300)
    path = tmp_path / "store.duckdb"
    for _ in range(3 + DEATHS_MAX * UNSIGNED):
        next(iter(began(path).pieces(journal)))
    crashes = began(path)
    assert not crashes.deadly
    assert [one for piece in crashes.pieces(journal) for one in piece] == journal


def test_what_ends_processes_without_a_sign_is_passed_over_late(tmp_path: Path) -> None:
    """An overflowing stack leaves none; for ever is too long to stand still."""
    path = tmp_path / "store.duckdb"
    ends = 0
    while not (crashes := began(path)).deadly:
        next(crashes.pieces(records(3)))
        ends += 1
    assert ends == 2 + DEATHS_MAX * UNSIGNED


def test_one_end_while_a_record_is_named_blames_nobody(tmp_path: Path) -> None:
    """A person may kill the process at just that moment; the record is applied by the next one."""
    path = tmp_path / "store.duckdb"
    Crashes(path).begin()
    wary = Crashes(path)
    wary.begin()
    next(wary.pieces(records(3)))
    careful = Crashes(path)
    careful.begin()
    assert careful.is_careful
    assert next(careful.pieces(records(3))) == records(1)
    after = Crashes(path)
    after.begin()
    assert [len(piece) for piece in after.pieces(records(3))] == [1, 2]
    assert not after.deadly
    assert not after.is_careful


def test_what_stands_in_the_way_of_all_records_blames_none(tmp_path: Path) -> None:
    """After an error of the store, or with nothing left to apply, no record stays named."""
    path = tmp_path / "store.duckdb"
    Crashes(path).begin()
    next(iter(began(path).pieces(records(3))))
    for _ in range(4):
        crashes = began(path)
        next(crashes.pieces(records(3)))
        crashes.relax()
        assert not crashes.is_careful
    assert not began(path).deadly


def test_small_pieces_end_once_enough_went_well(tmp_path: Path) -> None:
    """Then a batch is applied whole again."""
    path = tmp_path / "store.duckdb"
    Crashes(path).begin()
    crashes = began(path)
    many = records(1) * (WARY_RECORDS + 300)
    sizes = [len(piece) for piece in crashes.pieces(many)]
    assert sizes == [WARY_PIECE] * (WARY_RECORDS // WARY_PIECE) + [300]


def test_a_file_that_cannot_be_read_or_written_stops_nothing(tmp_path: Path) -> None:
    """It is only a help; the rows do not depend on it."""
    path = tmp_path / "store.duckdb"
    Crashes(path).begin()
    (tmp_path / "store.duckdb.crashes").write_bytes(b"\xff{")
    assert list(began(path).pieces(records(2))) == [records(2)]
    elsewhere = Crashes(tmp_path / "no-such-folder" / "store.duckdb")
    elsewhere.begin()
    assert list(elsewhere.pieces(records(2))) == [records(2)]
    elsewhere.end()


def leave_a_sign(path: Path) -> None:
    """What Python's fault handler writes where a process dies of itself."""
    path.with_name(path.name + ".trace").write_text("Fatal Python error: made up\n")


def began(path: Path) -> Crashes:
    crashes = Crashes(path)
    crashes.begin()
    return crashes


# At work


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The platform with the bug, known to this process and to children."""
    import calls.providers
    from calls.provider import discover

    folder = tmp_path / "platforms"
    folder.mkdir()
    (folder / f"{PLATFORM}.py").write_text(MODULE.replace("SEGFAULT", BUG))
    monkeypatch.setattr(calls.providers, "__path__", [*calls.providers.__path__, str(folder)])
    discover.cache_clear()
    yield folder
    monkeypatch.undo()
    discover.cache_clear()
    sys.modules.pop(f"{calls.providers.__name__}.{PLATFORM}", None)


def test_a_process_that_dies_of_a_delivery_lives_on_without_it(
    tmp_path: Path, platform: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segmentation fault within a normaliser: six processes end, the seventh applies all the rest."""
    monkeypatch.setenv("PLATFORMS", str(platform))
    sent = [webhook(number, "segfault" if number == 151 else "go on") for number in range(1, 200)]
    command.journal(tmp_path, sent)
    ends: list[int] = []
    while len(ends) < 10:
        with child(WORK, tmp_path / "data", len(sent)) as process:
            ended = process.wait(60)
        if ended == 0:
            break
        ends.append(ended)
    assert ends == [-signal.SIGSEGV] * ENDS
    assert contents(tmp_path, "SELECT position, reason FROM dead_letters") == [(151, "crashed_worker")]
    assert contents(tmp_path, "SELECT count(*) FROM calls") == [(len(sent) - 1,)]
    assert list(Crashes(tmp_path / "data" / "store.duckdb").deadly) == [sent[150].id]


def test_what_ended_a_process_is_shown_and_tried_again_in_another(tmp_path: Path, platform: Path) -> None:
    """No command ends of it either; once the code is mended it counts."""
    command.settings_file(tmp_path)
    (tmp_path / "data").mkdir()
    poison = webhook(2, "segfault")
    command.journal(tmp_path, [webhook(1), poison, webhook(3)])
    path = tmp_path / "data" / "store.duckdb"
    for _ in range(2 + DEATHS_MAX):
        next(began(path).pieces([as_read(poison, "j1", 2)]))
        leave_a_sign(path)
    began(path).end()
    assert list(Crashes(path).deadly) == [poison.id]
    rebuild(tmp_path / "data" / "journal.sqlite", path, Rules())
    assert contents(tmp_path, "SELECT position, reason FROM dead_letters") == [(2, "crashed_worker")]
    shown = finished(tmp_path, platform, "dead", "show", "2")
    assert "crashed_worker" in shown
    assert poison.body.decode() in shown
    assert "None of them would be understood now." in finished(tmp_path, platform, "dead", "retry", "--yes")
    (platform / f"{PLATFORM}.py").write_text(MODULE.replace("SEGFAULT", MENDED))
    assert "3 records applied" in finished(tmp_path, platform, "dead", "retry", "--yes")
    assert contents(tmp_path, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert contents(tmp_path, "SELECT count(*) FROM calls") == [(3,)]
    assert not Crashes(path).deadly


def test_a_delivery_that_takes_all_memory_is_passed_over_too(tmp_path: Path, platform: Path) -> None:
    """An error of memory ends the process like a signal, so it counts like one."""
    sent = [webhook(1), webhook(2, "no memory"), webhook(3)]
    command.journal(tmp_path, sent)
    path = tmp_path / "data" / "store.duckdb"
    for _ in range(2 + DEATHS_MAX):
        worker = worker_of(tmp_path)
        store = worker.open()
        with pytest.raises(MemoryError):
            worker.run()
        store.close()
        leave_a_sign(path)
    worker = worker_of(tmp_path)
    store = worker.open()
    with running(worker):
        until(lambda: worker.state.position == 3)
        assert rows(store, "SELECT position, reason FROM dead_letters") == [(2, "crashed_worker")]
        assert not worker.state.careful
    worker.close()
    assert list(Crashes(path).deadly) == [sent[1].id]
    rebuild(tmp_path / "data" / "journal.sqlite", path, Rules())
    assert contents(tmp_path, "SELECT position, reason FROM dead_letters") == [(2, "crashed_worker")]
    with pytest.raises(MemoryError):
        rebuild(tmp_path / "data" / "journal.sqlite", path, Rules(), forgiven=[sent[1].id])
    assert contents(tmp_path, "SELECT count(*) FROM calls") == [(2,)]


@pytest.mark.parametrize("shuffled", [False, True])
def test_one_deep_in_a_batch_of_kafkas_is_found_too(tmp_path: Path, platform: Path, shuffled: bool) -> None:
    """What of a batch is in the store comes again after every end, and in another order: who is in doubt has a name."""
    path = tmp_path / "store.duckdb"
    poison = webhook(251, "no memory")
    sent = [*map(webhook, range(1, 251)), poison, *map(webhook, range(252, 401))]
    fetched = [as_read(one, "j1", number) for number, one in enumerate(sent, 1)]
    ends = 0
    while True:
        crashes = began(path)
        if shuffled:
            Random(ends).shuffle(fetched)
        store = Store.open(path, rules=Rules())
        try:
            Applier(store, Rules(), crashes=crashes).apply(fetched, [Position("kafka", "topic/0", 400)])
            break
        except MemoryError:
            ends += 1
            leave_a_sign(path)
            assert ends <= ENDS
        finally:
            store.close()
    assert ends >= DEATHS_MAX
    assert list(crashes.deadly) == [poison.id]
    assert not crashes.is_careful
    assert contents_of(path, "SELECT count(*) FROM calls") == [(len(sent) - 1,)]


def test_queries_wait_for_a_few_commits_only(tmp_path: Path) -> None:
    """However long the store takes for a commit: no more than a few records of those in doubt are applied alone."""
    path = tmp_path / "store.duckdb"
    Crashes(path).begin()
    many = records(300)
    alone: list[int] = []
    for _ in range(4):
        crashes = began(path)
        alone.append(0)
        pieces = crashes.pieces(many)
        for piece in pieces:
            alone[-1] += crashes.is_careful
            if not crashes.is_careful and len(piece) > 1:
                break  # killed in the midst of it
        if alone[-1]:
            for _ in pieces:
                alone[-1] += crashes.is_careful
    assert alone == [0, 0, 0, 4]


def test_kafkas_positions_wait_for_the_last_piece(tmp_path: Path, platform: Path) -> None:
    """Where records come in no single order, a partition counts as applied when all of its batch is."""
    path = tmp_path / "store.duckdb"
    Crashes(path).begin()
    next(began(path).pieces(records(4)))
    crashes = began(path)
    assert crashes.is_careful
    store = Store.open(path, rules=Rules())
    try:
        recent = RecentCalls()
        fetched = [*records(3), as_read(notice(1), "j1", 4), as_read(webhook(5, "no memory"), "j1", 5)]
        applier = Applier(store, Rules(), recent=recent, crashes=crashes)
        with pytest.raises(MemoryError):
            applier.apply(fetched, [Position("kafka", "topic/0", 5)])
        assert store.positions() == {}
        for _ in range(DEATHS_MAX):
            leave_a_sign(path)
            with pytest.raises(MemoryError):
                Applier(store, Rules(), crashes=began(path)).apply(fetched[4:], [Position("kafka", "topic/0", 5)])
        leave_a_sign(path)
        last = began(path)
        assert list(last.deadly) == [webhook(5, "no memory").id]
        Applier(store, Rules(), crashes=last).apply(fetched, [Position("kafka", "topic/0", 5)])
        assert store.positions() == {("kafka", "topic/0"): 5}
        assert everything(store)["dead_letters"]
        announced = Announcer(store, recent, record_bytes_max=1 << 20, crashes=last).again(fetched)
        assert [record.topic for record in announced] == ["calltally.calls"] * 3 + ["calltally.dead"]
    finally:
        store.close()


def test_no_query_runs_while_a_record_is_named(tmp_path: Path) -> None:
    """It is told to come back; health says why, and that the process lives."""
    path = tmp_path / "store.duckdb"
    Crashes(path).begin()
    next(began(path).pieces(records(3)))
    state = WorkerState(running=True, crashes=began(path))
    store = Store.open(path, rules=Rules())
    try:
        with serving(store, state=state) as served:
            with pytest.raises(QueryError, match="looked for the delivery") as refused:
                Client(served.url, TOKEN).query("SELECT 1")
            assert refused.value.code == "busy"
            for method, name in (("GET", "verify"), ("POST", "snapshot")):
                answer = httpx.request(method, f"{served.url}/{name}", headers={"authorization": f"Bearer {TOKEN}"})
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            ready = httpx.get(f"{served.url}/readyz")
            assert (ready.status_code, "looked for" in ready.json()["reason"]) == (503, True)
            assert httpx.get(f"{served.url}/healthz").status_code == 200
            assert state.crashes is not None
            state.crashes.relax()
            assert Client(served.url, TOKEN).query("SELECT 1 AS one").to_pydict() == {"one": [1]}
            assert httpx.get(f"{served.url}/readyz").status_code == 200
    finally:
        store.close()


@contextmanager
def calltally(folder: Path, platforms: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    main = written(folder)
    with (folder / "worker.log").open("ab") as told:
        process = subprocess.Popen(
            [sys.executable, "-B", str(main), *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=told, env={**command.environment(), "PLATFORMS": str(platforms)},
        )  # fmt: skip
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        process.wait()


def finished(folder: Path, platforms: Path, *words: str) -> str:
    """What a command says on stdout and stderr, once it has ended well."""
    done = subprocess.run(
        [sys.executable, "-B", str(written(folder)), *words], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False, text=True,
        env={**command.environment(), "PLATFORMS": str(platforms)},
    )  # fmt: skip
    assert done.returncode == 0, (words, done.returncode, done.stdout)
    return done.stdout


def written(folder: Path) -> Path:
    main = folder / "main.py"
    main.write_text(MAIN)
    return main


def log(folder: Path) -> str:
    return (folder / "worker.log").read_text()


def query(folder: Path, text: str) -> list[tuple[object, ...]]:
    with closing(Client.of(load(folder, {}))) as client:
        return [tuple(row.values()) for row in client.query(text).to_pylist()]


def count(folder: Path) -> object:
    try:
        return query(folder, "SELECT count(*) FROM deliveries")[0][0]
    except QueryError:
        return None


def contents_of(path: Path, text: str) -> list[tuple[object, ...]]:
    store = Store.open(path, rules=Rules())
    try:
        return [tuple(row) for row in rows(store, text)]
    finally:
        store.close()


def contents(folder: Path, text: str) -> list[tuple[object, ...]]:
    store = command.store_of(folder)
    try:
        return [tuple(row) for row in rows(store, text)]
    finally:
        store.close()


def worker_of(folder: Path) -> Worker:
    path = folder / "data" / "store.duckdb"
    return Worker(folder / "data" / "journal.sqlite", lambda: Store.open(path, rules=Rules()), Rules(), store_path=path)


@contextmanager
def running(worker: Worker) -> Iterator[None]:
    from threading import Thread

    thread = Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(20)
        assert not thread.is_alive()
