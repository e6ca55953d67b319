"""What does a refresh of a page cost the dashboard's server, with a million calls in the store?

    python -m benchmarks.page                    # 1,000,000 calls over 116 days
    python -m benchmarks.page --stored 100000

The store is filled by SQL, a worker's SQL endpoint serves it from a process of its own, and before each drawing a few
new calls are committed, so that no answer comes from the cache. Figures are of the script that draws the page, queries
included: what one viewer's refresh takes of the server; `CPU` is that of the dashboard's process. Streamlit's own
sending and the browser's drawing come on top.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from analytics.query import Limits
from analytics.server import create_app, serve
from analytics.store import Store
from benchmarks import store as filler
from calls.model import CallKey, Rules
from dashboard.data import ASK_AGAIN_S
from streams.worker_state import WorkerState

APP = Path(__file__).parent.parent / "dashboard" / "entry" / "start.py"
TOKEN = "benchmark"
NEW_CALLS = 5
PAGES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("overview, 7 days", "overview", {}),
    ("overview, 14 days", "overview", {"range": "14d"}),
    ("overview, 90 days", "overview", {"range": "90d"}),
    ("overview, 90 days, one agent", "overview", {"range": "90d", "agent": "agent-3"}),
    ("calls, 7 days", "calls", {}),
    ("calls, 90 days", "calls", {"range": "90d"}),
    ("calls, 90 days, found by number", "calls", {"range": "90d", "find": "+49 301234 77"}),
    ("calls, 7 days, found by words", "calls", {"find": "said 7"}),
    ("calls, 90 days, found by words", "calls", {"range": "90d", "find": "said 7"}),
    ("one call", "calls", {"call": "synthflow//stored-{middle}"}),
    ("one call, timeline", "calls", {"call": "synthflow//stored-{middle}", "show": "timeline"}),
    ("SQL", "sql", {"sql": "SELECT connection, count(*) FROM rollup_calls GROUP BY ALL"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=9, help="how often each page is drawn")
    parser.add_argument("--only", default="", help="only pages whose name has this in it")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        _serve(asked.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        began = time.perf_counter()
        filler.START = time.time_ns() // 1000 - 60_000_000
        filler.fill(path, asked.stored)
        took_s, mib = time.perf_counter() - began, path.stat().st_size >> 20
        print(f"filled with {asked.stored:,} calls in {took_s:.0f} s, {mib} MiB")
        with _endpoint(path) as (port, commit):
            os.environ |= {"CALLTALLY_SQL_URL": f"http://127.0.0.1:{port}", "CALLTALLY_SQL_TOKEN": TOKEN}
            os.environ["CALLTALLY_DATA_DIR"] = folder
            for name, page, address in PAGES:
                if asked.only in name:
                    filled = {key: value.format(middle=asked.stored // 2) for key, value in address.items()}
                    _measure(name, page, filled, asked.times, commit)


def _measure(name: str, page: str, address: dict[str, str], times: int, commit: Callable[[], None]) -> None:
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params.update(address)
    # Our pages are functions, which AppTest cannot switch to by file.
    test._page_hash = calc_hash("" if page == "overview" else page)
    took, cpu = [], []
    for _ in range(times + 1):
        commit()
        # Longer than the dashboard takes what it knows of the worker for current.
        time.sleep(ASK_AGAIN_S + 0.05)
        began = time.process_time()
        test.run()
        cpu.append((time.process_time() - began) * 1000)
        if test.exception or test.error:
            raise SystemExit(f"{name}: {test.exception or test.error}")
        took.append(test.session_state["drawn"].took_s * 1000)
    first, *others = took
    print(
        f"{name:32} fastest {min(others):4.0f} ms  median {statistics.median(others):4.0f} ms  "
        f"slowest {max(others):4.0f} ms  first {first:5.0f} ms  CPU {statistics.median(cpu[1:]):4.0f} ms"
    )


@contextmanager
def _endpoint(path: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """A worker's endpoint over the store, in its own process: its port, and what commits a few new calls there."""
    command = [sys.executable, "-m", "benchmarks.page", "--serve", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        stdin, stdout = child.stdin, child.stdout
        if stdin is None or stdout is None:
            raise SystemExit("the endpoint cannot be talked to")

        def commit() -> None:
            stdin.write("commit\n")
            stdin.flush()
            stdout.readline()

        try:
            yield int(stdout.readline()), commit
        finally:
            stdin.close()


def _serve(path: Path) -> None:
    store = Store.open(path, rules=Rules())
    app = create_app(store, token=TOKEN, limits=Limits(), worker_state=WorkerState(running=True))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = serve(app, "127.0.0.1", port, explicit_token=True)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    print(port, flush=True)
    filler.START = time.time_ns() // 1000
    work = filler.traffic()
    for _ in sys.stdin:
        events = filler.work_of(work, NEW_CALLS)
        keys = [CallKey(timed.provider, timed.event.org, str(timed.event.call_id)) for timed in events]
        store.apply(filler.batch_of(events, keys, store.stored_calls(keys)))
        print("committed", flush=True)
    server.should_exit = True
    thread.join()
    store.close()


if __name__ == "__main__":
    main()
