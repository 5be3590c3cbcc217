"""Times as an owner types them on a command line: `2h`, `90m`, `1h30m`, `45s`, `2d`, or a clock such as `18:30`."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PARTS: Final = re.compile(r"(\d+)([dhms])")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})")
_LONGEST: Final = timedelta(days=366)


def moment_after(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Return when a duration from `now` ends, or when the clock on the wall next shows a time; aware, UTC.

    Raises ValueError that says what can be written.
    """
    word = text.strip().lower()
    clock = _CLOCK.fullmatch(word)
    if clock is not None:
        return _next_time(int(clock[1]), int(clock[2]), now, zone)
    parts = _PARTS.findall(word)
    if not parts or "".join(number + unit for number, unit in parts) != word:
        raise ValueError(f"{text!r} is no time; write 2h, 90m, 1h30m or a clock time such as 18:30")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is not between a second and a year")
    return now.astimezone(UTC) + timedelta(seconds=seconds)


def _next_time(hour: int, minute: int, now: datetime, zone: tzinfo | None) -> datetime:
    if hour > 23 or minute > 59:
        raise ValueError(f"there is no time {hour}:{minute:02}; write 00:00 to 23:59")
    local = now.astimezone(zone)
    for days in (0, 1):
        day = local.date() + timedelta(days=days)
        naive = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - the clock on the wall
        moment = (naive.replace(tzinfo=zone) if zone else naive).astimezone(UTC)
        if moment > now:
            return moment
    raise AssertionError("tomorrow is later than now")
