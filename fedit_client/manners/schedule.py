"""Hours in which a device may train, as its owner writes them: "22:00-07:00 mon-fri, all sat-sun". Pure.

A rule is a time span and the days on which it begins, or one of them; rules are joined by commas, and any of them is
enough. A span that ends before it begins runs over midnight and belongs to the day it began on. Times are those of the
clock on the wall: on a night when the clocks change, 22:00-07:00 lasts an hour more or less, as a person would say.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NAMES: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SPAN: Final = re.compile(r"^(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})$")
_DAY_MINUTES: Final = 24 * 60
_ALL_DAYS: Final = frozenset(range(7))
_EXAMPLE: Final = '"22:00-07:00 mon-fri, all sat-sun"'


@dataclass(frozen=True)
class Rule:
    """One span on some days: minutes since midnight; `end` is beyond 24 h where it runs into the next day."""

    begin: int
    end: int
    days: frozenset[int]
    """0 is Monday."""

    def text(self) -> str:
        """The rule in words."""
        when = (
            "all day" if (self.begin, self.end) == (0, _DAY_MINUTES) else f"from {_clock(self.begin)} to {self._to()}"
        )
        return f"{when} {_days_text(self.days)}"

    def _to(self) -> str:
        next_day = " the next day" if self.end > _DAY_MINUTES else ""
        return _clock(self.end if self.end == _DAY_MINUTES else self.end % _DAY_MINUTES) + next_day


@dataclass(frozen=True)
class Schedule:
    """When a device may train; without rules always."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read a schedule; raises ValueError that names the part which is not understood."""
        if text.strip().lower() in {"", "always"}:
            return cls()
        return cls(tuple(_rule(part) for part in text.lower().split(",")))

    def allows(self, local: datetime) -> bool:
        """Say whether a moment, in local time, lies within any rule."""
        return not self.rules or any(begin <= _wall(local) < end for begin, end in self._spans(local.date()))

    def next_opening(self, now: datetime, zone: tzinfo | None = None) -> datetime | None:
        """Return when the schedule next allows training; None if it does now. `now` is aware; no zone: this machine's.

        An opening that the clocks jump over is told by the clock after the jump.
        """
        local = now.astimezone(zone)
        if self.allows(local):
            return None
        later = [begin for begin, _ in self._spans(local.date(), ahead=8) if begin > _wall(local)]
        # Without a zone the datetime is taken for this machine's local time, with that day's offset.
        opening = min(later)
        return (opening.replace(tzinfo=zone) if zone else opening).astimezone(UTC).astimezone(zone)

    def text(self) -> str:
        """The whole schedule in words."""
        return " and ".join(rule.text() for rule in self.rules) if self.rules else "at any time"

    def _spans(self, day: date, ahead: int = 0) -> Iterator[tuple[datetime, datetime]]:
        """Yield the spans that begin from the day before on, as wall times without a zone."""
        for offset in range(-1, ahead + 1):
            midnight = datetime.combine(day + timedelta(days=offset), time())
            for rule in self.rules:
                if midnight.weekday() in rule.days:
                    yield midnight + timedelta(minutes=rule.begin), midnight + timedelta(minutes=rule.end)


def _wall(local: datetime) -> datetime:
    return local.replace(tzinfo=None)


def _rule(part: str) -> Rule:
    words = part.split()
    if not words or len(words) > 2:
        raise ValueError(f"{part.strip() or 'an empty part'!r} is no time span with days; write {_EXAMPLE}")
    span = (0, _DAY_MINUTES) if words[0] in {"all", "always"} else _span(words[0])
    if span is None:
        if len(words) == 2:
            raise ValueError(f"{words[0]!r} is no time span such as 22:00-07:00; write {_EXAMPLE}")
        return Rule(0, _DAY_MINUTES, _days(words[0]))
    return Rule(*span, _days(words[1]) if len(words) == 2 else _ALL_DAYS)


def _span(word: str) -> tuple[int, int] | None:
    found = _SPAN.match(word)
    if found is None:
        return None
    begin, end = (_minutes(found[place], found[place + 1]) for place in (1, 3))
    if begin in (_DAY_MINUTES, end):
        raise ValueError(f"{word!r} holds no time; a whole day is written: all")
    return begin, end if end > begin else end + _DAY_MINUTES


def _minutes(hour: str, minute: str) -> int:
    total = int(hour) * 60 + int(minute)
    if int(minute) >= 60 or total > _DAY_MINUTES:
        raise ValueError(f"there is no time {hour}:{minute}; write 00:00 to 24:00")
    return total


def _days(word: str) -> frozenset[int]:
    first, dash, last = word.partition("-")
    begin, end = _day(first), _day(last) if dash else _day(first)
    return frozenset((begin + step) % 7 for step in range((end - begin) % 7 + 1))


def _day(word: str) -> int:
    if word[:3] not in DAYS or not _NAMES[DAYS.index(word[:3])].lower().startswith(word):
        raise ValueError(f"{word!r} is no day; days are {', '.join(DAYS)}; write {_EXAMPLE}")
    return DAYS.index(word[:3])


def _days_text(days: frozenset[int]) -> str:
    if days == _ALL_DAYS:
        return "every day"
    # Start after a gap, so that sat-mon is said as one stretch.
    starts = [day for day in sorted(days) if (day - 1) % 7 not in days]
    return " and ".join(_stretch(start, days) for start in starts)


def _stretch(start: int, days: frozenset[int]) -> str:
    last = start
    while (last + 1) % 7 in days:
        last = (last + 1) % 7
    return f"on {_NAMES[start]}s" if last == start else f"from {_NAMES[start]} to {_NAMES[last]}"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
