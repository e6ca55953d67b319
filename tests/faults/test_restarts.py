"""Rolling restarts: `calltally up` begins anew under load, and no sender notices."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import signal
import socket
import subprocess
import termios
import threading
import urllib.request
from contextlib import closing
from pathlib import Path

import psutil

from tests.faults.cast import COMMAND, Folder, Up, environment, listening
from tests.faults.scenarios import restarts
from tests.waiting import until


def test_restarts_under_load_refuse_and_fail_nothing(tmp_path: Path) -> None:
    """Three restarts by SIGHUP: every genuine webhook gets its 200, and all of them count once."""
    outcome = restarts(tmp_path / "run", 1, 3)

    assert outcome.clean, f"python -m tests.faults --scenario restarts --seed 1 --count 3\n{outcome}"
    assert set(outcome.answers) == {"200"}
    assert outcome.switched_off == 0


def test_who_connects_while_ingest_is_being_started_again_waits(tmp_path: Path) -> None:
    """The supervisor keeps the socket of a killed ingest: a connection is answered late instead of being refused."""
    folder = Folder(tmp_path / "run")
    with Up(folder) as up:
        up.await_ready()
        up.kill("ingest")

        with urllib.request.urlopen(f"http://127.0.0.1:{folder.ports['ingest']}/healthz", timeout=30) as answer:
            assert answer.status == 200


def test_settings_that_are_broken_leave_the_running_ingest_alone(tmp_path: Path) -> None:
    """A restart into settings that cannot be used is given up, in words; the door stays open, and so is the rest."""
    folder = Folder(tmp_path / "run")
    with Up(folder) as up:
        up.await_ready()
        settings = folder.path / "calltally.toml"
        good = settings.read_text()
        settings.write_text(good + "[sources.nobody]\n")
        up.signal(signal.SIGHUP)
        until(lambda: "nothing else begins anew" in up.said(), "the restart is given up")
        assert "the new ingest cannot start" in up.said()
        assert "worker begins anew" not in up.said()

        with closing(socket.create_connection(("127.0.0.1", folder.ports["ingest"]), timeout=10)) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        settings.write_text(good)


def test_a_kept_connection_goes_over_to_the_next_ingest(tmp_path: Path) -> None:
    """Whether it was used before or not, and whatever is sent on it meanwhile: nobody has to connect again."""
    folder = Folder(tmp_path / "run")
    with Up(folder) as up, contextlib.ExitStack() as kept:
        up.await_ready()
        used, silent, busy = (kept.enter_context(closing(_connected(folder))) for _ in range(3))
        assert _asked(used) == (200, False)
        for number in range(1, 3):
            up.signal(signal.SIGHUP)
            while up.said().count("every process has begun anew") < number:
                assert _asked(busy) == (200, False)
        assert [_asked(connection) for connection in (used, silent)] == [(200, False)] * 2


def test_a_terminal_that_is_gone_stops_everything(tmp_path: Path) -> None:
    """Where SIGHUP says that the terminal was closed, `up` stops in order instead of going on unseen."""
    folder = Folder(tmp_path / "run")
    ours, theirs = os.openpty()
    up = subprocess.Popen(
        COMMAND, cwd=folder.path, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no thread runs yet
    )  # fmt: skip
    os.close(theirs)
    reading = threading.Thread(target=_read_all, args=(ours,), daemon=True)
    reading.start()
    try:
        until(lambda: listening(folder), "up is ready")
        family = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGHUP)
        until(lambda: listening(folder), "a signal alone, with the terminal still there, is a restart")
        os.close(ours)

        # 120 is Python's way of saying that its last words found no terminal any more.
        assert up.wait(60) in (0, 120)
        assert not any(child.is_running() for child in family)
    finally:
        up.kill()
        up.wait(10)
        reading.join(10)


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65_536):
            continue


def _connected(folder: Folder) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", folder.ports["ingest"], timeout=20)
    connection.connect()
    connection.auto_open = 0  # a connection that was closed must not be made anew unnoticed
    return connection


def _asked(connection: http.client.HTTPConnection) -> tuple[int, bool]:
    """The answer's status, and whether the connection is closed after it."""
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.will_close
