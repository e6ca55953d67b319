"""How our processes write their log: JSON lines for machines, plain lines for who watches `calltally up`."""

from __future__ import annotations

import json
import logging
import re
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+")


def write_log(*, readable: bool) -> None:
    """Set up our own lines and those of libraries, on stderr; in both forms control characters are escaped."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
        structlog.processors.format_exc_info,
    ]
    last: Processor = _line if readable else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, last],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _line(_: WrappedLogger, __: str, event: EventDict) -> str:
    """`12:30:01 warning  refused  source=synthflow reason=signature_wrong`"""
    at, level, what = event.pop("timestamp", ""), event.pop("level", ""), event.pop("event", "")
    rest = " ".join(f"{name}={_value(value)}" for name, value in event.items())
    return f"{at} {level:<8} {_value(what, quoted=False)}  {rest}".rstrip()


def _value(value: object, *, quoted: bool = True) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    escaped = json.dumps(text)
    return escaped if quoted else escaped[1:-1].replace('\\"', '"')
