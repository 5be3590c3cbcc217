"""A run as it is seen: lines where nothing can move, bars where it can, and no colours where none are wanted."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedit_client.console import Console
from fedit_client.conversations.display import RunDisplay
from fedit_client.conversations.watching import changes
from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.home.paths import Paths
from fedit_client.manners.control import Now, Wish, ask_pause
from fedit_client.manners.duration import moment_after
from fedit_client.network.patience import utc_now
from fedit_client.running.doing import doing_lines

SHOWS = """
from fedit_client.console import Console
from fedit_client.conversations.display import RunDisplay
from fedit_client.events import Event, EventKind, RoundStage

with RunDisplay(Console()) as display:
    display.show(Event(EventKind.ROUND_OPENED, "round 7 has opened", round_no=7))
    for step in range(51):
        share = step / 50
        display.show(Event(EventKind.PROGRESS, f"train: {step} of 50", share, RoundStage.TRAIN, 7, stage_eta_s=90.0))
    display.show(Event(EventKind.PAUSED, "paused: you paused it", round_no=7))
    display.show(Event(EventKind.ROUND_COMMITTED, "round 7 is committed", 1.0, RoundStage.DONE, 7))
"""
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m")


def shown(**environment: str) -> bytes:
    """What a terminal receives."""
    person, terminal = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "FORCE_COLOR", "TERM"}}
    with subprocess.Popen([sys.executable, "-c", SHOWS], stdout=terminal, env={**kept, **environment}) as process:
        os.close(terminal)
        said = b""
        try:
            while piece := os.read(person, 65536):
                said += piece
        except OSError:  # how a terminal on Linux says that nobody writes any more
            pass
        assert process.wait(timeout=20) == 0
    os.close(person)
    return said


def test_a_terminal_shows_a_bar_that_moves() -> None:
    said = shown(TERM="xterm-256color")
    assert b"\x1b[" in said
    assert b"  train: train: 50 of 50" in said  # what a finished stage leaves behind


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"TERM": "xterm-256color", "CI": "true"}], ids=["dumb", "CI"]
)
def test_what_cannot_move_gets_a_line_for_each_tenth(environment: dict[str, str]) -> None:
    said = shown(**environment, NO_COLOR="1")
    assert b"\x1b[" not in said
    lines = said.decode().splitlines()
    assert len([line for line in lines if line.startswith("  train: ")]) == 11
    assert "  train: train: 5 of 50 · about 2 min left" in lines
    assert "paused: you paused it" in lines


def test_no_colour_is_sent_where_none_is_wanted() -> None:
    assert COLOUR.search(shown(TERM="xterm-256color"))
    assert not COLOUR.search(shown(TERM="xterm-256color", NO_COLOR="1"))


def test_a_display_knows_whether_it_is_in_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay(Console()) as display:
        seen = [display.round_no]
        for kind in (EventKind.ROUND_OPENED, EventKind.STAGE, EventKind.ROUND_COMMITTED):
            display.show(Event(kind, kind.value, None, RoundStage.TRAIN, 7))
            seen.append(display.round_no)
        display.hold_still("what now?")
        display.show(Event(EventKind.PROGRESS, "unseen", 0.5, RoundStage.TRAIN, 7))
        display.move_again()
    assert seen == [None, 7, 7, None]
    assert "? what now?" in (told := capsys.readouterr().out)
    assert "unseen" not in told


NOON = 1_800_000_000.0
BASE = {"run": "r", "pid": 1, "started_at": NOON, "written_at": NOON, "since": NOON - 180}
DOING = {
    "starting": (Now(**BASE), ["starting for 3 min"]),
    "starting, and what takes long": (Now(**BASE, text="fetching a base"), ["starting for 3 min: fetching a base"]),
    "idle": (
        Now(**BASE, activity="waiting", reason="waiting for devices", rule="server"),
        ["idle for 3 min: waiting for devices"],
    ),
    "paused between rounds": (
        Now(**BASE, activity="paused", reason="this machine runs on its battery", rule="on_battery"),
        ["paused for 3 min: this machine runs on its battery  (polite.on_battery)"],
    ),
    "paused in a round": (
        Now(**BASE, activity="paused", reason="you paused it", rule="owner", round_no=7, stage="train", progress=0.43),
        ["paused for 3 min: you paused it", "round 7 waits at train, 43 %"],
    ),
    "at work": (
        Now(
            **BASE,
            activity="round",
            round_no=7,
            stage="train",
            progress=0.43,
            stage_eta_s=300,
            eta_s=420,
            finishing=True,
        ),
        [
            "in round 7 for 3 min",
            "train, 43 %, about 5 min left; the round: about 7 min",
            "stops after this round, as you asked: fedit-client resume takes it back",
        ],
    ),
    "slowed": (
        Now(**BASE, activity="round", round_no=7, throttled="somebody is using this machine"),
        ["in round 7 for 3 min", "half speed: somebody is using this machine  (polite.user_active)"],
    ),
    "not running": (None, ["not running: fedit-client run"]),
}


@pytest.mark.parametrize(("now", "lines"), DOING.values(), ids=DOING)
def test_status_says_what_goes_on_and_why_not(now: Now | None, lines: list[str]) -> None:
    moment = moment_after("1s", utc_now()).fromtimestamp(NOON, utc_now().tzinfo)
    assert doing_lines(now, Wish(), moment) == lines


def test_watching_says_again_what_changed_and_nothing_else(tmp_path: Path) -> None:
    paths, asked = Paths.under(tmp_path), list[int]()

    def wait() -> None:
        asked.append(1)
        if len(asked) == 3:
            ask_pause(paths, utc_now().timestamp())

    watching = changes(paths, wait)
    first, second = next(watching), next(watching)
    assert (first[0]["running"], first[1]) == (False, ["not running: fedit-client run"])
    told = "not running: fedit-client run · the next run waits: you paused it; fedit-client resume goes on"
    assert (second[0]["text"], second[1]) == (told, [told])
    assert len(asked) == 3
