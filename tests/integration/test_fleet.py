"""A fleet of virtual clients against the real server over real HTTPS; the trainer is a fake."""

import asyncio
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.config import ClientConfig
from fedit_client.data import Record, records_from
from fedit_client.fleet import Dropouts, parse_availability
from fedit_client.fleet.availability import Availability
from fedit_client.fleet.member import VirtualClient, World
from fedit_client.fleet.runner import Fleet
from fedit_client.fleet.shelf import SharedShelf
from fedit_client.fleet.tally import Tally, read_rounds
from fedit_client.membership.offers import fetch_task
from fedit_client.membership.trust import ServerAddress, recognise
from fedit_client.network.transport import Transport
from fedit_client.rounds.preparation import unplanned
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_client.training.turns import FairTurns
from fedit_protocol.errors import ConfigError, DataError, FleetError, SecurityError
from fedit_protocol.ids import TaskId
from fedit_protocol.limits import Limits
from fedit_protocol.signing import SigningKey
from fedit_server.access.invites import Terms, create_invite
from fedit_server.admin.live_rounds import order_round
from fedit_server.storage.round_orders import RoundOrder

from ..server.bases import make_base
from .federation import UNIT, Federation, exact_task, federation

ROWS: tuple[Record, ...] = records_from([{"instruction": "say ok", "response": "ok"}] * 20).records


@dataclass
class OneStep(FakeTrainer):
    """Adds one ring step at coordinate 0, so that the mean of any clients is just that; its seed says where else."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        result.update[:] = 0
        result.update[0] = UNIT
        # No update is given to two rounds on one adapter (C4), and these differ in nothing else.
        result.update[1 + int.from_bytes(request.seed[:2], "big") % (len(result.update) - 1)] = UNIT
        return replace(result, tokens_per_second=1000.0)


@dataclass
class Made:
    """A fleet that is about to run, and its parts."""

    fleet: Fleet
    world: World
    trainer: OneStep
    folder: Path

    def lines(self) -> list[dict[str, Any]]:
        self.world.tally.close()
        return read_rounds(self.folder)


async def made(
    served: Federation, clients: int, trainer: OneStep | None = None, folder: str = "fleet", **world: Any
) -> Made:
    """Return a fleet of this many clients on a running server, which it may tell to end a stage."""
    parts = served.server.parts
    invite = await create_invite(
        parts.store.members, parts.invite_salt, served.server.address, parts.identity.pin, Terms(1000, 3600),
        int(time.time()),
    )  # fmt: skip
    address = ServerAddress.parse(str(invite.link))
    offer = await fetch_task(await recognise(address), address, None, Limits())
    tls, home = offer.federation.tls(), served.folder / folder
    home.mkdir(exist_ok=True)
    trainer = trainer or OneStep()

    def connect(key: SigningKey | None) -> AbstractAsyncContextManager[Transport]:
        return address.transport(tls, None if key is None else (key, offer.federation.descriptor.federation_id))

    values: dict[str, Any] = {
        "offer": offer,
        "address": address,
        "connect": connect,
        "config": ClientConfig(home=home),
        "turns": FairTurns([trainer]),
        "base": Path(),
        "plan": unplanned(offer.document),
        "shelf": SharedShelf(home / "adapters", offer.document),
        "tally": Tally(home),
        "seed": 3,
        "dropouts": Dropouts(3),
        "availability": parse_availability("always"),
        "began_at": time.time(),
    }
    everything = World(**{**values, **world})

    async def end_stage(round_no: int, whole: bool) -> bool:
        try:
            await order_round(
                parts.admin,
                TaskId("exact"),
                round_no,
                RoundOrder.ABORT if whole else RoundOrder.CLOSE,
                reason="too few",
            )
        except ConfigError:
            return False
        return True

    members = [VirtualClient(n, f"client_{n}", ROWS, home / "clients" / str(n)) for n in range(clients)]
    return Made(Fleet(members, everything, end_stage=end_stage), everything, trainer, home)


async def test_six_clients_run_two_rounds_and_leave_aggregates_only(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 6, rounds=2)
    async with federation(tmp_path, task) as served, asyncio.timeout(60):
        small = await made(served, 6)
        await small.fleet.run()
        adapter = await served.adapter(2) - await served.adapter(0)
    assert adapter[0] == np.float32(2 * UNIT)
    assert np.count_nonzero(adapter) > 6
    first, second = small.lines()
    assert (first["round"], second["round"]) == (1, 2)
    for line in (first, second):
        assert line["outcome"] == "committed"
        assert (line["clients"], line["survivors"], line["trained"], line["dropped"]) == (6, 6, 6, {})
        assert (line["rows"], line["train_loss"]) == (6 * 120, 1.5)
        assert line["bytes_up"] > 6 * 1000
    assert {request.seed for request in small.trainer.requests} != {small.trainer.requests[0].seed}
    assert [path.name for path in sorted((small.folder / "adapters" / task.id).glob("*"))] == ["0", "1", "2"]


@dataclass(frozen=True)
class Chosen(Dropouts):
    """Drops the clients that a test names, each before a step of a round."""

    steps: tuple[tuple[int, int, str], ...] = ()

    def step(self, client: int, round_no: int) -> str | None:
        return next((step for who, number, step in self.steps if (who, number) == (client, round_no)), None)


DROPS = Chosen(
    0,
    steps=(
        *((0, 1, "join"), (1, 1, "training"), (2, 1, "upload")),
        *((0, 2, "shares"), (4, 2, "ack"), (5, 2, "unmask")),
    ),
)
TOO_MANY = Chosen(0, steps=((0, 1, "unmask"), (1, 1, "unmask"), (2, 1, "unmask"), (3, 1, "unmask")))
LONG = {"gather_s": 600.0, "join_s": 600.0, "shares_s": 600.0, "upload_s": 600.0, "unmask_s": 600.0}


@pytest.mark.slow
async def test_clients_vanish_at_every_step_and_come_back_and_no_deadline_is_sat_out(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 8, rounds=2, cohort_min=5, dropout_fraction=0.4, deadlines=LONG)
    async with federation(tmp_path, task) as served, asyncio.timeout(90):
        small = await made(served, 8, dropouts=DROPS)
        await small.fleet.run()
        adapter = await served.adapter(2) - await served.adapter(0)
    assert adapter[0] == np.float32(2 * UNIT)
    first, second = small.lines()
    assert first["dropped"] == {"join": 1, "training": 1, "upload": 1}
    assert (first["clients"], first["survivors"], first["trained"]) == (8, 5, 6)
    assert second["dropped"] == {"shares": 1, "ack": 1, "unmask": 1}
    assert (second["clients"], second["survivors"]) == (8, 6)


@pytest.mark.slow
async def test_a_round_that_too_many_have_left_is_ended_and_the_next_one_follows(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 5, rounds=1, cohort_min=4, deadlines=LONG)
    async with federation(tmp_path, task) as served, asyncio.timeout(90):
        small = await made(served, 5, dropouts=TOO_MANY)
        await small.fleet.run()
    first, second = small.lines()
    assert (first["outcome"], first["dropped"], first["survivors"]) == ("failed", {"unmask": 4}, 0)
    assert "too few" in first["reason"]
    assert (second["outcome"], second["survivors"]) == ("committed", 5)


@dataclass(frozen=True)
class Away(Availability):
    """The named client is never there."""

    client: int

    def online(self, seed: int, client: int, at_s: float) -> bool:
        return client != self.client

    def until_s(self, seed: int, client: int, at_s: float) -> float:
        return at_s + 3600.0


@pytest.mark.slow
async def test_who_is_offline_takes_no_part_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 4, rounds=1, cohort_min=3)
    async with federation(tmp_path, task) as served, asyncio.timeout(60):
        small = await made(served, 4, availability=Away(2))
        await small.fleet.run()
    (line,) = small.lines()
    assert (line["clients"], line["survivors"]) == (3, 3)


class Picky(OneStep):
    """Refuses clients without rows, as training does where no row keeps an answer."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        if not request.records:
            raise DataError("no row can be trained on", code="D012")
        return await super().train(request, on_progress)


@pytest.mark.slow
async def test_a_client_whose_rows_are_of_no_use_is_out_and_the_others_go_on(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 5, rounds=1, cohort_min=3, dropout_fraction=0.4)
    async with federation(tmp_path, task) as served, asyncio.timeout(60):
        small = await made(served, 5, trainer=Picky())
        small.fleet.members[4].client = replace(small.fleet.members[4].client, records=())
        await small.fleet.run()
    assert list(small.fleet.out) == ["client_4"]
    (line,) = small.lines()
    assert (line["outcome"], line["survivors"]) == ("committed", 4)


@pytest.mark.slow
async def test_a_fleet_with_too_few_clients_left_for_a_round_says_so_instead_of_waiting(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 5, rounds=1, cohort_min=4, deadlines=LONG)
    async with federation(tmp_path, task) as served, asyncio.timeout(60):
        small = await made(served, 5, trainer=Picky())
        for number in (3, 4):
            small.fleet.members[number].client = replace(small.fleet.members[number].client, records=())
        with pytest.raises(FleetError, match="2 of 5 clients are out, and a round needs 4") as refused:
            await small.fleet.run()
    assert refused.value.code == "F014"


@pytest.mark.slow
async def test_clients_that_have_enrolled_go_on_without_an_invite(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 3, rounds=2)
    async with federation(tmp_path, task) as served, asyncio.timeout(60):
        first = await made(served, 3)
        first.fleet.max_rounds = 1
        await first.fleet.run()
        assert len(first.lines()) == 1
        again = await made(served, 3)
        again.fleet.members[:] = [
            type(member)(member.client, replace(again.world, address=replace(again.world.address, code=None)))
            for member in again.fleet.members
        ]
        await again.fleet.run()
        assert len(await served.server.parts.store.members.clients()) == 3
    assert [line["round"] for line in again.lines()] == [1, 2]


@pytest.mark.slow
async def test_a_fleet_of_another_federation_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    async with federation(tmp_path, exact_task(base, 3, rounds=1)) as served:
        await (await made(served, 3)).fleet.run()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "fleet").parent.mkdir()
    (tmp_path / "fleet").rename(elsewhere / "fleet")
    async with federation(elsewhere, exact_task(base, 3, rounds=1)) as other:
        with pytest.raises(FleetError) as refused:
            await (await made(other, 3)).fleet.run()
    assert refused.value.code == "F008"


@pytest.mark.slow
async def test_an_invite_that_is_used_up_is_told(tmp_path: Path) -> None:
    async with federation(tmp_path, exact_task(make_base(tmp_path / "base"), 3, rounds=1)) as served:
        small = await made(served, 3)
        small.fleet.world.address.__dict__["code"] = "K7QF2M9DXT4BW8HC"
        with pytest.raises(SecurityError) as refused:
            await small.fleet.run()
    assert refused.value.code == "T006"


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_hundreds_of_virtual_clients_finish_their_rounds(tmp_path: Path) -> None:
    seconds = {"gather_s": 20.0, "join_s": 120.0, "shares_s": 120.0, "upload_s": 300.0, "unmask_s": 120.0}
    task = exact_task(
        make_base(tmp_path / "base"), 40, rounds=3, cohort_min=20, dropout_fraction=0.4, deadlines=seconds
    )
    async with federation(tmp_path, task) as served, asyncio.timeout(800):
        large = await made(served, 300, dropouts=Dropouts(5, 0.1), availability=parse_availability("bernoulli:0.9:20"))
        await large.fleet.run()
        adapter = await served.adapter(3) - await served.adapter(0)
    assert adapter[0] == np.float32(3 * UNIT)
    lines = [line for line in large.lines() if line["outcome"] == "committed"]
    assert [line["adapter_version"] for line in lines] == [1, 2, 3]
    assert all(line["clients"] <= 40 for line in lines)
    dropped = sum((Counter(line["dropped"]) for line in lines), Counter())
    assert dropped.total() > 0
