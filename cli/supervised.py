"""What a process that `calltally up` started does: it tells when it is prepared, and ends with its supervisor."""

from __future__ import annotations

import os
import signal
import sys
import threading


def end_with_supervisor() -> None:
    """Ask ourselves to stop once standard input ends: the supervisor holds its other end for as long as it lives."""
    threading.Thread(target=_wait_for_the_end, name="supervisor-watch", daemon=True).start()


def tell(descriptor: int) -> None:
    """Tell the supervisor, once, that we are prepared to take over from the process before us."""
    os.write(descriptor, b"prepared")
    os.close(descriptor)


def _wait_for_the_end() -> None:
    # The bare descriptor: a buffered reader's lock would be in use at interpreter shutdown, which is fatal.
    while os.read(sys.stdin.fileno(), 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
