"""Rounds that are drawn by what devices declare: over HTTP, with devices that check in for real."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from fedit_protocol.declaration import Declaration
from fedit_protocol.ids import ClientId, TaskId, client_id
from fedit_protocol.selection import Declared, Seen
from fedit_protocol.task import RoundSpec, Selection
from fedit_protocol.testing import ManualClock
from fedit_server.rounds.cohort import Known, divide, draw_round
from fedit_server.rounds.lobby import GRACE, Lobby
from fedit_server.rounds.task_runner import TaskRunner

from .bases import small_task
from .conftest import start

FREE = [ClientId(f"client {number}") for number in range(8)]


async def test_a_round_covers_what_its_devices_declare(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """Six devices are free at the end of gathering, three are invited, and two domains have one holder each."""
    task = small_task(
        base, round={"selection": "stratified"}, top={"selection": {"domains": ["closed_qa", "poetry", "summaries"]}}
    )
    held = ["closed_qa"] * 4 + ["poetry", "summaries"]
    async with start(tmp_path / "home", clock, task, long_poll_s=20.0) as running:
        runner = running.parts.coordinator._runners[TaskId("notes")]
        devices = await running.join(6)
        for device, domain in zip(devices, held, strict=True):
            device.declared = Declaration(domains=("a domain of another task", domain))
        waiting = [asyncio.create_task(device.check_in()) for device in devices]
        await running.until(lambda: are_free(runner.lobby, 6))
        assert not any(check_in.done() for check_in in waiting)
        await running.pass_time(30)
        await running.until(lambda: has_opened(runner))
        assert runner.live is not None
        (cohort,) = runner.live.opening.cohorts
        invited = {number for number, device in enumerate(devices) if client_id(device.key.public) in cohort}
        for poll in waiting:
            poll.cancel()
        assert len(invited) == 3
        assert {4, 5} < invited
        assert runner._served == {"closed_qa": 1, "poetry": 1, "summaries": 1}


async def has_opened(runner: TaskRunner) -> bool:
    return runner.live is not None


async def are_free(lobby: Lobby, count: int) -> bool:
    return len(lobby.declared()) == count and lobby._enough_since is not None


def policy(**fields: object) -> RoundSpec:
    return RoundSpec.model_validate({"cohort_min": 3, "cohort_size": 4, **fields})


def test_a_rule_that_asks_nothing_draws_from_everybody() -> None:
    for rule in (Selection.UNIFORM, Selection.SELF):
        drawn = Counter(
            client
            for number in range(400)
            for client in draw_round(FREE, policy(selection=rule), Known(), number.to_bytes(4, "big"))
        )
        assert all(abs(drawn[client] - 200) < 50 for client in FREE)
    assert draw_round(FREE, policy(selection="first_come"), Known(), b"") == FREE[:4]


def test_more_are_invited_than_wanted_where_some_will_be_late() -> None:
    rule = policy(selection="resource_aware", deadlines={"upload_s": 600})
    declared = {client: Declared(round_s=512.0 if number < 6 else 1024.0) for number, client in enumerate(FREE)}
    chosen = draw_round(FREE, rule, Known(declared=declared), b"seed")
    assert (rule.ring_size, rule.most_clients, len(chosen)) == (5, 5, 5)
    assert set(chosen) < set(FREE[:6])
    assert [len(cohort) for cohort in divide(chosen, rule, b"seed")] == [5]


def test_what_was_declared_is_forgotten_with_the_device(clock: ManualClock) -> None:
    lobby, said = Lobby(), Declared(frozenset({"poetry"}))
    for client in FREE[:3]:
        lobby.saw(client, clock(), said)
    lobby.saw(FREE[3], clock())
    assert set(lobby.declared()) == set(FREE[:3])
    lobby.remove(FREE[0])
    with lobby.waiting(FREE[1]):
        clock.advance(seconds=2 * GRACE.total_seconds())
        assert lobby.free(clock()) == [FREE[1]]
        assert set(lobby.declared()) == {FREE[1]}
    assert not lobby.declared()


@pytest.mark.parametrize("count", [3, 5])
def test_a_cohort_of_an_over_selected_round_may_be_smaller(count: int) -> None:
    assert [len(one) for one in divide(FREE[:count], policy(selection="resource_aware"), b"seed")] == [count]


def trusted(rule: str) -> RoundSpec:
    return policy(selection=rule, mode="trusted", cohort_size=3, deadlines={"upload_s": 600})


def test_oort_draws_by_what_the_last_updates_said() -> None:
    seen: dict[str, Seen] = {client: Seen(10, float(number), 60.0) for number, client in enumerate(FREE)}
    assert set(draw_round(FREE, trusted("oort"), Known(50, seen=seen), b"seed")) == set(FREE[5:])
    new: dict[str, Seen] = {client: seen[client] for client in FREE[:4]}
    assert not set(draw_round(FREE, trusted("oort"), Known(1, seen=new), b"seed")) & set(FREE[:3])


def test_power_of_choice_asks_for_twice_as_many_and_takes_the_largest_losses() -> None:
    seen: dict[str, Seen] = {client: Seen(10, float(number), 0.0) for number, client in enumerate(FREE)}
    drawn = [draw_round(FREE, trusted("power_of_choice"), Known(2, seen=seen), bytes([n])) for n in range(20)]
    assert all(max(chosen, key=FREE.index) in FREE[5:] for chosen in drawn)
    assert all(FREE[0] not in chosen and FREE[1] not in chosen for chosen in drawn)
    newcomers = draw_round(FREE, trusted("power_of_choice"), Known(2, seen={FREE[0]: seen[FREE[0]]}), b"seed")
    assert FREE[0] not in newcomers
