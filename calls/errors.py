"""Every error that Calltally raises on purpose, in one tree.

    CalltallyError
    ├── SettingsError            a settings file, variable or option is wrong; nothing starts
    ├── RequestRejected          a sender's request is refused; `code` is its reason
    │   └── SignatureRejected    the request is not proved genuine (401)
    ├── PayloadMalformed         a verified body we cannot understand; becomes a dead letter
    ├── JournalError
    │   ├── JournalUnavailable   the disk does not take writes now (transient)
    │   ├── JournalLocked        another process is the journal's writer
    │   └── JournalDamaged       a row fails its digest; it is reported and kept out
    ├── StoreError
    │   ├── StoreUnavailable     the store cannot commit now (transient)
    │   ├── StoreLocked          another process owns the store
    │   ├── StoreDamaged         the file cannot be read; it is set aside and rebuilt
    │   └── StoreMismatch        the store was made from another journal, topic or rule set
    ├── BrokerError
    │   ├── BrokerUnavailable    Kafka cannot be reached or does not acknowledge now (transient)
    │   ├── BrokerRefused        Kafka refuses us: login, certificate or rights
    │   ├── TopicUnsuitable      a topic's settings would lose or refuse records
    │   └── RecordMalformed      a record on one of our topics that is not in our format
    └── QueryError               an SQL request is refused or failed; `code` says how

`transient` says whether trying again later may succeed. `code` is a stable word for machines, the message one
or two sentences for a person: what happened, why, and what to do.
"""

from __future__ import annotations


class CalltallyError(Exception):
    """Base of all errors that are meant to be read by a person."""

    transient = False
    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self.args[0])


class SettingsError(CalltallyError):
    """A setting is missing, unknown or wrong; the message names it and shows a line that works."""

    code = "settings"


class RequestRejected(CalltallyError):
    """A sender's request that is refused at the door."""

    code = "rejected"


class SignatureRejected(RequestRejected):
    """The request could not be proved genuine; the message names what to check, never the secret."""

    code = "signature_wrong"


class PayloadMalformed(CalltallyError):
    """A verified body that cannot be understood; `code` is the dead letter's reason."""

    code = "not_understood"


class JournalError(CalltallyError):
    """Something about the journal."""

    code = "journal"


class JournalUnavailable(JournalError):
    """The journal cannot be made durable at this moment."""

    transient = True
    code = "journal_unavailable"


class JournalLocked(JournalError):
    """Another process is this journal's writer."""

    code = "journal_locked"


class JournalDamaged(JournalError):
    """A journalled row does not match its digest."""

    code = "journal_damaged"


class StoreError(CalltallyError):
    """Something about the store."""

    code = "store"


class StoreUnavailable(StoreError):
    """A batch could not be committed now; reopen, read the position, go on from there."""

    transient = True
    code = "store_unavailable"


class StoreLocked(StoreError):
    """Another process has the store open."""

    code = "store_locked"


class StoreDamaged(StoreError):
    """The store's file cannot be read."""

    code = "store_damaged"


class StoreMismatch(StoreError):
    """The store belongs to another journal, topic or set of rules."""

    code = "store_mismatch"


class BrokerError(CalltallyError):
    """Something about Kafka."""

    code = "broker"


class BrokerUnavailable(BrokerError):
    """Kafka cannot be reached, or does not acknowledge, at this moment."""

    transient = True
    code = "broker_unavailable"


class BrokerRefused(BrokerError):
    """Kafka refuses us until login, certificate or rights are put right."""

    code = "broker_refused"


class TopicUnsuitable(BrokerError):
    """A topic's settings would lose or refuse records; the message names them."""

    code = "topic_unsuitable"


class RecordMalformed(BrokerError):
    """A record on one of our topics that is not in our format."""

    code = "record_malformed"


class QueryError(CalltallyError):
    """An SQL request that is refused, wrong, or took too long (`code` is `timeout` then)."""

    code = "query"
