"""Hours as their owner writes them: read, said back, and right at midnight and when the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from fedit_client.manners.schedule import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = Schedule.parse("22:00-07:00 mon-fri, all sat-sun")

MOMENTS = {
    "Monday at 21:59": ("2026-11-23 21:59", False),
    "Monday at 22:00": ("2026-11-23 22:00", True),
    "Tuesday at midnight": ("2026-11-24 00:00", True),
    "Tuesday at 06:59": ("2026-11-24 06:59", True),
    "Tuesday at 07:00": ("2026-11-24 07:00", False),
    "Monday at 06:00, for Sunday has no night rule": ("2026-11-23 06:00", False),
    "Friday at 23:00": ("2026-11-27 23:00", True),
    "Saturday at noon": ("2026-11-28 12:00", True),
    "Sunday at 23:59": ("2026-11-29 23:59", True),
}


@pytest.mark.parametrize(("moment", "allowed"), MOMENTS.values(), ids=MOMENTS)
def test_a_rule_over_midnight_belongs_to_the_day_it_began_on(moment: str, allowed: bool) -> None:
    assert NIGHTS.allows(datetime.fromisoformat(moment).replace(tzinfo=BERLIN)) is allowed


SAID = {
    "always": "at any time",
    "": "at any time",
    "all": "all day every day",
    "22:00-07:00 mon-fri, all sat-sun": "from 22:00 to 07:00 the next day from Monday to Friday and all day from "
    "Saturday to Sunday",
    "9:00-17:30 wed": "from 09:00 to 17:30 on Wednesdays",
    "18:00-24:00": "from 18:00 to 24:00 every day",
    "sat-mon": "all day from Saturday to Monday",
    "ALL Sunday": "all day on Sundays",
    "00:00-24:00 fri": "all day on Fridays",
}


@pytest.mark.parametrize(("text", "words"), SAID.items(), ids=[text or "nothing" for text in SAID])
def test_it_is_said_back_in_words(text: str, words: str) -> None:
    assert Schedule.parse(text).text() == words


WRONG = {
    "at night": "'at' is no time span",
    "25:00-07:00": "there is no time 25:00",
    "22:60-07:00": "there is no time 22:60",
    "22:00-22:00": "holds no time",
    "24:00-07:00": "holds no time",
    "22:00-07:00 someday": "'someday' is no day",
    "22:00-07:00 mon to fri": "is no time span with days",
    "22:00-07:00 mon,": "an empty part",
    "monkey": "'monkey' is no day",
}


@pytest.mark.parametrize(("text", "reason"), WRONG.items(), ids=WRONG)
def test_what_is_not_understood_is_named(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Schedule.parse(text)


def test_the_next_opening_is_told() -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=BERLIN)
    assert NIGHTS.next_opening(noon.astimezone(UTC), BERLIN) == datetime(2026, 11, 23, 22, tzinfo=BERLIN)
    assert NIGHTS.next_opening(noon + timedelta(hours=11), BERLIN) is None
    only = Schedule.parse("10:00-11:00 mon")
    assert only.next_opening(noon, BERLIN) == datetime(2026, 11, 30, 10, tzinfo=BERLIN)


def test_a_night_on_which_the_clocks_change_ends_by_the_clock_on_the_wall() -> None:
    """29 March 2026, 02:00 becomes 03:00; 25 October 2026, 03:00 becomes 02:00."""
    every_night = Schedule.parse("22:00-07:00")
    for evening, hours in (("2026-03-28 22:00", 8), ("2026-10-24 22:00", 10), ("2026-11-10 22:00", 9)):
        begin = datetime.fromisoformat(evening).replace(tzinfo=BERLIN).astimezone(UTC)
        end = begin + timedelta(hours=hours)
        assert not every_night.allows((begin - timedelta(minutes=1)).astimezone(BERLIN))
        assert every_night.allows((end - timedelta(minutes=1)).astimezone(BERLIN))
        assert not every_night.allows(end.astimezone(BERLIN))


def test_an_opening_that_the_clocks_jump_over_comes_when_they_have_jumped() -> None:
    gap = Schedule.parse("02:30-05:00")
    before = datetime(2026, 3, 29, 1, 30, tzinfo=BERLIN)
    opening = gap.next_opening(before, BERLIN)
    assert opening is not None
    assert opening.astimezone(UTC) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert gap.allows(opening)
    assert opening.strftime("%H:%M") == "03:30"
