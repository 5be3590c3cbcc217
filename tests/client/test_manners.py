"""Facts and settings in, a reason or none out: what begins at once, what needs patience, and how it is said."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from fedit_client.manners.rules import Facts, GpuUse, Hold, Rules, Verdict, owners_pause
from fedit_client.manners.settings import PoliteSettings

ZONE = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 27, 11, tzinfo=UTC)  # a Friday, noon in Berlin
CALM = Facts(False, GpuUse(0.02, 80.0), "", 900.0, 60.0, "GPU", False, 3.0)
BUSY_GPU = GpuUse(0.71, 300.0, "blender.exe")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def rules(**polite: object) -> Rules:
    return Rules(PoliteSettings.model_validate(polite), ZONE)


REASONS: dict[str, tuple[Facts, str]] = {
    "on_battery": (replace(CALM, on_battery=True), "this machine runs on its battery"),
    "fullscreen": (replace(CALM, fullscreen="vlc"), "a program fills the screen (vlc)"),
    "max_temp_c": (replace(CALM, temperature_c=84.0), "the GPU is at 84 °C, and 83 °C is your limit"),
    "metered_network": (replace(CALM, metered=True), "the network connection is metered"),
    "max_disk_gb": (replace(CALM, disk_gb=31.2), "this client keeps 31.2 GB on the disk, and 30 GB is your limit"),
}


@pytest.mark.parametrize(("rule", "facts", "text"), [(rule, *row) for rule, row in REASONS.items()], ids=REASONS)
def test_each_reason_holds_at_once_and_is_said_in_words(rule: str, facts: Facts, text: str) -> None:
    assert rules().judge(facts, NOON).holds == (Hold(rule, text),)


def test_a_calm_machine_trains_and_so_does_one_that_cannot_tell() -> None:
    assert rules().judge(CALM, NOON) == Verdict()
    assert rules().judge(Facts(), NOON) == Verdict()


@pytest.mark.parametrize("rule", ["on_battery", "fullscreen", "metered_network"])
def test_what_the_owner_ignores_is_ignored(rule: str) -> None:
    assert rules(**{rule: "ignore"}).judge(REASONS[rule][0], NOON) == Verdict()


def test_a_busy_gpu_counts_after_twenty_seconds_and_is_named() -> None:
    busy, own = replace(CALM, gpu_others=BUSY_GPU), rules()
    assert [own.judge(busy, at(seconds)).hold is not None for seconds in (0, 5, 10, 15)] == [False] * 4
    hold = own.judge(busy, at(20)).hold
    assert hold == Hold("gpu_busy", "another program uses the GPU (blender.exe, 71 %)")


def test_a_gpu_that_is_busy_for_a_moment_stops_nothing() -> None:
    busy, own = replace(CALM, gpu_others=BUSY_GPU), rules()
    for seconds in range(0, 100, 5):
        facts = CALM if seconds % 20 == 15 else busy
        assert own.judge(facts, at(seconds)).hold is None


def test_memory_of_others_counts_like_their_work() -> None:
    own = rules()
    own.judge(replace(CALM, gpu_others=GpuUse(None, 2100.0, "game")), NOON)
    hold = own.judge(replace(CALM, gpu_others=GpuUse(None, 2100.0, "game")), at(20)).hold
    assert hold is not None
    assert hold.text == "another program uses the GPU (game, 2100 MB of its memory)"
    quiet = rules()
    quiet.judge(replace(CALM, gpu_others=GpuUse(0.15, 600.0)), NOON)
    assert quiet.judge(replace(CALM, gpu_others=GpuUse(0.15, 600.0)), at(60)).hold is None


def test_a_reason_ends_after_twenty_calm_seconds() -> None:
    own = rules()
    assert own.judge(replace(CALM, on_battery=True), NOON).hold is not None
    assert [own.judge(CALM, at(seconds)).hold is not None for seconds in (5, 10, 19, 20)] == [True, True, True, False]


def test_what_was_hot_has_to_cool_down_first() -> None:
    own = rules()
    holds = [own.judge(replace(CALM, temperature_c=float(c)), at(60 * n)).hold for n, c in enumerate((84, 80, 78))]
    assert [hold is not None for hold in holds] == [True, True, False]
    assert holds[1] is not None
    assert holds[1].text == "the GPU is at 80 °C, and 83 °C is your limit; it cools down to 78 °C first"
    assert rules().judge(replace(CALM, temperature_c=80.0), NOON).hold is None


def test_somebody_at_the_machine_halves_the_speed_unless_the_owner_wants_otherwise() -> None:
    active = replace(CALM, idle_s=5.0)
    verdict = rules().judge(active, NOON)
    assert (verdict.hold, verdict.throttle) == (None, Hold("user_active", "somebody is using this machine"))
    assert rules(user_active="pause").judge(active, NOON).holds[0].rule == "user_active"
    assert rules(user_active="ignore").judge(active, NOON) == Verdict()


def test_outside_the_owners_hours_it_says_when_it_goes_on() -> None:
    hold = rules(schedule="22:00-07:00 mon-fri").judge(CALM, NOON).hold
    assert hold is not None
    assert hold.text == "outside your hours, from 22:00 to 07:00 the next day from Monday to Friday; goes on at 22:00"
    assert hold.until == datetime(2026, 11, 27, 22, tzinfo=ZONE)
    assert rules(schedule="22:00-07:00").judge(CALM, at(10 * 3600)).hold is None


def test_the_hours_of_a_day_are_counted() -> None:
    hold = rules(max_hours_per_day=2).judge(replace(CALM, trained_today_s=7200.0), NOON).hold
    assert hold == Hold(
        "max_hours_per_day", "trained 2.0 h today, and 2 h is your limit; goes on at midnight", at(12 * 3600)
    )
    assert rules(max_hours_per_day=2).judge(replace(CALM, trained_today_s=7199.0), NOON).hold is None


def test_the_owners_own_pause_is_told_with_its_end() -> None:
    assert owners_pause(None, NOON, ZONE).text == "you paused it; fedit-client resume goes on"
    soon, later = owners_pause(at(5400), NOON, ZONE), owners_pause(at(86400), NOON, ZONE)
    assert soon.text == "you paused it; goes on at 13:30, or with fedit-client resume"
    assert later.text.startswith("you paused it; goes on tomorrow at 12:00")


def test_several_reasons_are_all_kept_and_the_first_is_told() -> None:
    facts = replace(CALM, on_battery=True, metered=True, temperature_c=90.0)
    verdict = rules(schedule="22:00-07:00").judge(facts, NOON)
    assert [hold.rule for hold in verdict.holds] == ["schedule", "on_battery", "max_temp_c", "metered_network"]
    assert verdict.hold == verdict.holds[0]
