"""How often this device takes part is for its owner to say; and who is asked to wait waits."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedit_client.network.patience import Patience
from fedit_client.network.problems import BusyError, problem_error
from fedit_client.records.journal import Journal
from fedit_client.rounds.engagement import Engagement
from fedit_protocol.limits import Limits, participation_wait_s
from fedit_protocol.testing import small_task

from .test_session import World, eventually

DAY_S = 86400


@pytest.mark.parametrize(
    ("joined", "most", "wait_s"),
    [
        ([], 1, 0),
        ([1000], 0, 0),
        ([1000], 2, 0),
        ([1000], 1, DAY_S - 100),
        ([500, 1000], 1, DAY_S - 100),
        ([500, 1000], 2, DAY_S - 600),
        ([1100 - DAY_S], 1, 0),
    ],
)
def test_how_long_the_owners_limit_keeps_a_device_out(joined: list[int], most: int, wait_s: int) -> None:
    assert participation_wait_s(joined, Limits(max_rounds_per_day=most), 1100) == wait_s


async def test_a_device_keeps_to_its_owners_rounds_per_day_and_says_so(tmp_path: Path) -> None:
    """C3: it does not even check in, however often the server would offer, also after a restart."""
    world = World(tmp_path, small_task(3, rounds=2))
    for device in world.devices:
        device.session._with = device.engagement = limited(device.engagement)
    asked: list[str] = []
    tasks = [asyncio.create_task(device.session.run(2)) for device in world.devices]
    try:
        await eventually(lambda: all(d.events and "is your limit" in d.events[-1].text for d in world.devices))
        world.devices[0].transport.before = asked.append
        for _ in range(50):
            await asyncio.sleep(0)
        assert (asked, len(world.server.results)) == ([], 1)
        assert "limits.max_rounds_per_day" in world.devices[0].events[-1].text
        remembered = Journal(tmp_path / "0" / "journal").joined_at
        assert remembered == [int(world.server.clock().timestamp())]
        world.server.clock.advance(seconds=DAY_S)
        async with asyncio.timeout(20):
            assert await asyncio.gather(*tasks) == [2, 2, 2]
    finally:
        for task in tasks:
            task.cancel()


def limited(engagement: Engagement) -> Engagement:
    return replace(engagement, limits=Limits(max_rounds_per_day=1))


async def test_who_is_asked_for_fewer_requests_waits_as_long_as_the_server_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("fedit_client.network.patience.asyncio.sleep", note)
    body = b'{"type": "urn:fedit:error:rate-limited", "detail": "slowly"}'
    refusals = [problem_error(429, body, "40", "server:1")]

    async def action() -> str:
        if refusals:
            raise refusals.pop()
        return "in"

    assert isinstance(refusals[0], BusyError)
    assert await Patience(lambda _: None).insist(action) == "in"
    assert len(pauses) == 1
    assert pauses[0] >= 40, "not before that"
    assert timedelta(seconds=pauses[0]) < timedelta(minutes=2)
