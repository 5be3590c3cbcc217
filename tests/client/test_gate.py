"""The gate and its keeper: a wish or a fact closes it, training is told, and a round is left when it cannot be done."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedit_client.config import load_config
from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.home.lock import held_alone
from fedit_client.home.paths import Paths
from fedit_client.manners.control import Activity, NowFile, ask_finish, ask_pause, ask_resume, read_now
from fedit_client.manners.gate import Gate, WithdrawnError
from fedit_client.manners.keeper import Keeper
from fedit_client.manners.live import LivePolite
from fedit_client.manners.rules import Facts, Hold, Rules, Verdict
from fedit_client.manners.settings import PoliteSettings
from fedit_client.network.bandwidth import Bandwidth
from fedit_client.records.pace import Pace
from fedit_client.testing import FakeFacts

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
BATTERY = Hold("on_battery", "this machine runs on its battery")
CLOSED = Verdict((BATTERY,))
METERED = Verdict((Hold("metered_network", "the network connection is metered"),))


@dataclass
class Kept:
    """A keeper whose clock the test moves."""

    paths: Paths
    keeper: Keeper
    source: FakeFacts
    events: list[Event] = field(default_factory=list)
    now: datetime = NOON

    async def look(self, seconds: float = 0.0) -> Gate:
        self.now += timedelta(seconds=seconds)
        await self.keeper.look()
        return self.keeper.gate

    def texts(self) -> list[str]:
        return [event.text for event in self.events]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with keeping_here(Paths.under(tmp_path)) as found:
        yield found


@contextmanager
def keeping_here(paths: Paths, **polite: object) -> Iterator[Kept]:
    source, events = FakeFacts(), list[Event]()
    found: Kept | None = None

    def clock() -> datetime:
        return found.now if found else NOON

    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON.timestamp()) as now_file:
        pace = Pace(paths.pace_file, "tiny@1", lambda: clock().timestamp())
        rules = Rules(PoliteSettings.model_validate(polite), UTC)
        keeper = Keeper(paths, Gate(), rules, source, now_file, pace, clock, events.append)
        found = Kept(paths, keeper, source, events)
        yield found


async def test_a_wish_closes_and_opens_the_gate(kept: Kept) -> None:
    assert (await kept.look()).hold is None
    ask_pause(kept.paths, NOON.timestamp())
    gate = await kept.look(1)
    assert gate.hold is not None
    assert gate.pause.reason == "you paused it; fedit-client resume goes on"
    ask_resume(kept.paths, NOON.timestamp())
    gate = await kept.look(1)
    assert (gate.hold, gate.pause.reason) == (None, "")
    assert kept.texts() == ["paused: you paused it; fedit-client resume goes on", "goes on"]


async def test_a_pause_with_an_end_ends_by_itself(kept: Kept) -> None:
    ask_pause(kept.paths, NOON.timestamp(), NOON.timestamp() + 3600)
    assert (await kept.look()).hold is not None
    assert (await kept.look(3599)).hold is not None
    assert (await kept.look(1)).hold is None


async def test_a_damaged_wish_may_have_been_a_pause(kept: Kept) -> None:
    kept.paths.control_file.write_text("{", encoding="utf-8")
    assert (await kept.look()).hold is not None


async def test_the_machine_is_looked_at_every_five_seconds(kept: Kept) -> None:
    for _ in range(11):
        await kept.look(1)
    assert kept.source.asked == ["cpu"] * 3
    kept.keeper.use("cuda:0", "NVIDIA RTX 4060")
    await kept.look(5)
    assert kept.source.asked[-1] == "cuda:0"


async def test_a_fact_closes_the_gate_and_the_reason_names_its_setting(kept: Kept) -> None:
    kept.source.facts = Facts(on_battery=True)
    gate = await kept.look()
    assert gate.pause.reason == "this machine runs on its battery"
    assert kept.texts() == ["paused: this machine runs on its battery  (polite.on_battery)"]
    kept.source.facts = Facts(on_battery=False)
    assert (await kept.look(5)).hold is not None
    assert (await kept.look(20)).hold is None


async def test_the_state_file_says_why_and_since_when(kept: Kept) -> None:
    kept.keeper.emit(Event(EventKind.ROUND_OPENED, "round 7 has opened", round_no=7))
    kept.source.facts = Facts(on_battery=True)
    await kept.look(5)
    kept.keeper.emit(Event(EventKind.STAGE, "keys", None, RoundStage.PREPARE, 7))
    await kept.look(1)
    paused = read_now(kept.paths)
    assert paused is not None
    assert (paused.activity, paused.rule, paused.round_no) == (Activity.PAUSED, "on_battery", 7)
    assert (paused.since, paused.reason) == (NOON.timestamp() + 5, "this machine runs on its battery")
    kept.source.facts = Facts()
    await kept.look(30)
    back = read_now(kept.paths)
    assert back is not None
    assert (back.activity, back.reason, back.stage) == (Activity.ROUND, "", RoundStage.PREPARE)


async def test_somebody_at_the_machine_is_told_as_half_speed(kept: Kept) -> None:
    kept.source.facts = Facts(idle_s=3.0)
    gate = await kept.look()
    assert gate.hold is None
    assert gate.throttle is not None
    assert kept.texts() == ["half speed: somebody is using this machine"]


async def test_finish_opens_the_way_out_and_resume_closes_it(kept: Kept) -> None:
    await kept.look()
    ask_finish(kept.paths, NOON.timestamp())
    gate = await kept.look(1)
    assert (gate.finishing, await gate.until_open()) == (True, False)
    ask_resume(kept.paths, NOON.timestamp())
    assert not (await kept.look(1)).finishing


async def test_hours_of_training_are_counted_while_it_trains_and_not_while_it_pauses(tmp_path: Path) -> None:
    with keeping_here(Paths.under(tmp_path), max_hours_per_day=1) as kept:
        await kept.look()
        kept.keeper.emit(Event(EventKind.ROUND_OPENED, "round 1", round_no=1))
        kept.keeper.emit(Event(EventKind.PROGRESS, "train", 0.1, RoundStage.TRAIN, 1))
        assert (await kept.look(3599)).hold is None
        gate = await kept.look(1)
        assert gate.hold is not None
        assert gate.hold.rule == "max_hours_per_day"
        assert (await kept.look(3600)).hold is not None
        assert kept.keeper.pace.trained_today_s("2026-11-27") == 3600.0
    with keeping_here(Paths.under(tmp_path), max_hours_per_day=1) as again:  # kept over a restart
        assert (await again.look()).hold is not None


async def test_what_waits_at_an_open_gate_is_cut_short_when_it_closes() -> None:
    gate, never = Gate(), asyncio.Event()
    waiting = asyncio.create_task(gate.unless_changed(never.wait))
    await asyncio.sleep(0)
    gate.set(CLOSED)
    assert await waiting is None
    assert await gate.unless_changed(never.wait) is None  # closed already
    gate.set(Verdict())
    never.set()
    assert await gate.unless_changed(never.wait) is True


async def test_a_round_is_left_when_the_pause_is_known_to_be_too_long() -> None:
    gate = Gate()
    until = NOON + timedelta(hours=2)
    gate.set(Verdict((Hold("owner", "you paused it", until),)))
    with pytest.raises(WithdrawnError) as left:
        await gate.in_time(lambda: 3600.0, lambda: NOON)
    assert (left.value.code, left.value.exit_code) == ("P002", 10)
    assert "you paused it; that is longer than the round waits" in str(left.value)


async def test_a_round_is_left_when_a_pause_without_an_end_has_used_up_its_time() -> None:
    gate = Gate()
    gate.set(CLOSED)
    left = iter([0.001, 0.0])
    with pytest.raises(WithdrawnError):
        await gate.in_time(lambda: next(left), lambda: NOON)


async def test_a_short_pause_is_waited_for() -> None:
    gate = Gate()
    gate.set(Verdict((Hold("owner", "you paused it", NOON + timedelta(minutes=1)),)))
    watch = asyncio.create_task(gate.in_time(lambda: 3600.0, lambda: NOON))
    await asyncio.sleep(0)
    gate.set(Verdict())
    await asyncio.sleep(0)
    assert not watch.done()
    watch.cancel()


async def test_only_a_metered_network_holds_up_an_upload() -> None:
    gate = Gate()
    gate.set(CLOSED)
    await gate.until_network(lambda: 0.0)
    gate.set(METERED)
    with pytest.raises(WithdrawnError, match="metered"):
        await gate.until_network(lambda: 0.001)
    waiting = asyncio.create_task(gate.until_network(lambda: 3600.0))
    await asyncio.sleep(0)
    gate.set(Verdict())
    await waiting


async def test_a_running_client_takes_over_what_is_set_and_nothing_that_is_wrong(tmp_path: Path) -> None:
    file, config = tmp_path / "client.toml", load_config(tmp_path)
    with keeping_here(Paths.under(tmp_path)) as kept:
        live = LivePolite(config.polite, lambda: config.read_again().polite, file)
        kept.keeper.live, caps = live, Bandwidth.of(config.polite)
        kept.keeper.follow(kept.keeper.rules.change)
        kept.keeper.follow(caps.follow)
        kept.source.facts = Facts(on_battery=True)
        assert (await kept.look()).hold is not None
        file.write_text('[polite]\non_battery = "ignore"\nmax_upload_kbps = 80\nprocess_priority = "normal"\n')
        assert (await kept.look(1)).hold is None
        assert caps.up.piece_bytes < caps.down.piece_bytes
        assert live.now.process_priority == "low"  # how training is planned is decided at the start
        file.write_text("[polite]\non_battery = 7\n")
        assert (await kept.look(1)).hold is None
        file.unlink()
        assert (await kept.look(1)).hold is not None
    said = kept.texts()
    assert "from now on this client goes on on battery power" in said
    assert any(text.startswith("the settings were changed, but not taken over: the setting polite") for text in said)
