"""How logs look: lines on a terminal, JSON in a daemon, each with the id of the request that it is about.

Logs name tasks, rounds, stages and counts; never rows, keys, codes, tokens or addresses (a test looks for them).
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

_REQUEST: Final[ContextVar[str]] = ContextVar("fedit_request_id", default="")
_PLAIN_FIELDS: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "taskName"}


def request_id() -> str:
    """Return the id of the request that is being answered; empty outside of one."""
    return _REQUEST.get()


@contextmanager
def about_request(name: str) -> Iterator[None]:
    """Let what is logged in this block, and in threads and tasks that it starts, carry the id of a request."""
    token = _REQUEST.set(name)
    try:
        yield
    finally:
        _REQUEST.reset(token)


class LineFormatter(logging.Formatter):
    """`12:00:00 the round is committed  task=clinic-notes round=3`: what `up` shows on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event with its fields behind it."""
        fields = [f"{name}={_short(value)}" for name, value in record.__dict__.items() if name not in _PLAIN_FIELDS]
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        text = f"{time} {record.getMessage()}" + ("  " + " ".join(fields) if fields else "")
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure_logs(*, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Send the server's own events to stderr: as lines, or as JSON for a daemon. Called by `up` and `serve` only.

    Libraries that name addresses in their messages (aiohttp's server, asyncio's TLS) are kept silent.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json_formatter() if as_json else LineFormatter())
    handler.addFilter(_add_request_id)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logging.getLogger("fedit_server").setLevel(level)
    for talkative in ("aiohttp", "asyncio"):
        logging.getLogger(talkative).setLevel(logging.CRITICAL)


def _add_request_id(record: logging.LogRecord) -> bool:
    if name := request_id():
        record.request_id = name
    return True


def _json_formatter() -> logging.Formatter:
    import structlog

    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    extra, errors = structlog.stdlib.ExtraAdder(), structlog.processors.format_exc_info
    shared: list[Any] = [stamp, structlog.stdlib.add_log_level, extra, errors]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
