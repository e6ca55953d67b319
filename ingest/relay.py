"""The relay: publishes the journal to Kafka, in its order, and remembers how far Kafka has acknowledged it.

At least once: after a crash what was published but not yet remembered is published again, in the same order, and
whoever reads it counts it once. The position is kept in the journal under the topic's id, so that a topic that was
made anew, or another cluster, receives the whole journal.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

from calls.crashes import Crashes
from calls.errors import CalltallyError, JournalError, SettingsError
from calls.journal import JournalReader
from calls.journal_cursor import JournalCursor
from ingest import broker, relay_state, topics
from ingest.publication import UNACKNOWLEDGED_MAX, Publication
from ingest.relay_state import RelayState
from ingest.topics import Topics

if TYPE_CHECKING:
    from calls.settings import Settings

RETRY_S: Final = (0.2, 0.5, 1.0, 2.0)
"""Pauses after the first, second, ... failure in a row."""
TELL_S: Final = 1.0
"""How old the state file may be."""
CRASHES_BESIDE: Final = "relay"
"""In the data folder; what is known of how relays ended is kept beside it."""

log = structlog.get_logger("relay")


class Relay:
    """Publishes one journal: `run` in the main thread or one of its own, until `stop`."""

    def __init__(self, settings: Settings, *, again_from: int | None = None) -> None:
        """`again_from` is the first position to publish, instead of the one after what was acknowledged."""
        self.state = RelayState()
        self._settings = settings
        self._again_from = again_from
        self._stopping = threading.Event()
        self._crashes = Crashes(settings.data_dir / CRASHES_BESIDE)
        self._told_at = 0.0
        self._file_failed = False

    def run(self) -> None:
        """Publish until `stop`. A failure turns the state's `fault` on and is tried again.

        Raises BrokerError (`relay_running`) where another relay publishes this journal, SettingsError.
        """
        broker.options(self._settings)
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        with relay_state.only_one(self._settings.data_dir):
            self.state.running = True
            self._crashes.begin(careful=UNACKNOWLEDGED_MAX)
            try:
                self._run()
            finally:
                self._crashes.end()
                self.state.running = False
                self._tell()
                log.info("stopped", position=self.state.position, lag=self.state.lag)

    def stop(self) -> None:
        """Ask `run` to return; it does within seconds, once what is under way is acknowledged or Kafka stays away."""
        self._stopping.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            published = self.state.published
            try:
                self._publish()
            except SettingsError:
                raise
            except CalltallyError as error:
                failures = 1 if self.state.published > published else failures + 1
                self._failed(error)
                longest = RETRY_S[min(failures, len(RETRY_S)) - 1]
                self._stopping.wait(longest * random.uniform(0.8, 1.2))

    def _publish(self) -> None:
        """Connect, and follow the journal until a failure or a stop."""
        reader = JournalReader(self._settings.journal_path)
        try:
            with broker.admin(self._settings) as client:
                found = topics.prepare(client, self._settings)
            self._tell_of(found)
            self._rewind(found)
            Publication(self._settings, reader, found, self.state, self._stopping, self._tick, self._crashes).follow()
        finally:
            reader.close()

    def _rewind(self, found: Topics) -> None:
        if self._again_from is None:
            return
        cursor = JournalCursor(self._settings.journal_path, topics.cursor_name(found.id))
        try:
            cursor.save(self._again_from - 1)
        finally:
            cursor.close()
        self._again_from = None

    def _tell_of(self, found: Topics) -> None:
        if found.made:
            log.info("topics made", topics=", ".join(found.made))
        sentences = [finding.sentence for finding in found.findings]
        for sentence in sentences:
            if sentence not in self.state.findings:
                log.warning("a topic should be otherwise", detail=sentence)
        self.state.findings = sentences

    def _failed(self, error: CalltallyError) -> None:
        if self.state.failed(error):
            say = log.warning if error.transient else log.error
            say("the relay waits", code=error.code, reason=error.message, lag=self.state.lag)
        self._note_the_backlog()
        self._tell()

    def _note_the_backlog(self) -> None:
        """The lag grows while Kafka is away: look how far the journal has come."""
        try:
            reader = JournalReader(self._settings.journal_path)
        except JournalError:
            return
        try:
            self.state.journal_position = reader.last_position()
        except JournalError:
            return
        finally:
            reader.close()

    def _tick(self) -> None:
        if time.monotonic() - self._told_at > TELL_S:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        try:
            relay_state.write(self.state.report(), self._settings.data_dir)
        except OSError as error:
            if not self._file_failed:
                log.warning("the relay's state cannot be written", reason=str(error))
            self._file_failed = True
        else:
            self._file_failed = False
