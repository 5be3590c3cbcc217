"""Where a task lists ranks, each virtual client trains and declares one of them, and the round is committed."""

import asyncio
from pathlib import Path

from fedit_client.fleet.ranks import rank_of
from fedit_protocol.task import Task

from ..server.bases import make_base
from .federation import exact_task, federation
from .test_fleet import made

CLIENTS, RANKS, SEED = 6, (64, 256), 11


async def test_a_fleet_trains_the_ranks_that_its_seed_deals(tmp_path: Path) -> None:
    plain = exact_task(make_base(tmp_path / "base"), CLIENTS).model_dump(mode="json")
    ranks = {"adapter": {**plain["adapter"], "ranks": RANKS}, "method": {"name": "nested"}}
    async with federation(tmp_path, Task.model_validate(plain | ranks)) as served, asyncio.timeout(60):
        small = await made(served, CLIENTS, seed=SEED)
        await small.fleet.run()
        (row,) = await served.server.parts.store.rounds.rounds()
    dealt = {number: rank_of(SEED, number, RANKS) for number in range(CLIENTS)}
    assert {request.own and request.own.parent.name: request.plan.rank for request in small.trainer.requests} == {
        str(number): rank for number, rank in dealt.items()
    }
    assert [*dealt.values()].count(256) == CLIENTS - 1, "enough to hide one another above rank 64"
    assert row.figures is not None
    # All have as many rows, so the block above rank 64 has the weight of those who train it.
    assert row.figures.report["statistics"]["rank 256"] * CLIENTS == row.figures.weight * (CLIENTS - 1)
