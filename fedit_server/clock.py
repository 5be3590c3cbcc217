"""The one place where the server reads the time; everything else is handed a Clock."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present moment, aware, in UTC."""


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


def unix_seconds(moment: datetime) -> int:
    """Return whole seconds since 1970, UTC: what signed messages carry."""
    return int(moment.timestamp())
