"""A task that has made a side delta goes on with a method that carries it on, or not at all."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_protocol.adapter import first_adapter
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import ClientId, RoundId, TaskId
from fedit_protocol.method_rules import loses_side
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.side_delta import SIDE, as_state
from fedit_protocol.peft_folder import Edition
from fedit_protocol.task import Task
from fedit_protocol.task_tables import MethodName
from fedit_server.adapters.peft_folder import write_peft_folder
from fedit_server.adapters.state import put_state
from fedit_server.adapters.tensors import to_safetensors
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.rounds import Opening
from fedit_server.storage.rows import AdapterRow, RoundView
from fedit_server.storage.store import Store
from fedit_server.tasks.base_model import read_folder
from fedit_server.tasks.files import resolve
from fedit_server.tasks.publishing import Publisher
from fedit_server.tasks.start_adapter import read_adapter

from ..postgres import Databases
from .bases import signed, small_task
from .histories import add_clients

TASK, ROUND = TaskId("notes"), RoundId("0" * 32)
TRUSTED = {"flora", "flexlora", "fedex_lora"}


@dataclass
class Desk:
    """One server's store, and the tasks that are published into it."""

    base: Path
    store: Store
    blobs: DiskBlobs
    publisher: Publisher

    def task(self, name: str, version: int = 1, **sections: Any) -> Task:
        mode: dict[str, object] = {"mode": "trusted"} if name in TRUSTED else {}
        return small_task(self.base, round=mode, top={"version": version, "method": {"name": name}}, **sections)

    async def made(self, name: str, *, side: bool = True) -> None:
        """Publish the task, and a version 1 of it with a side delta, or with other state."""
        assert await self.publisher.publish(self.task(name), 1)
        layout = resolve(self.task(name), read_folder(self.base)).layout
        factors = {pair.path: (np.ones((pair.m, 1)), np.ones((1, pair.n))) for pair in lora_pairs(layout)}
        state = as_state(SIDE, factors) if side else {"sketch/columns": np.ones(1, np.float32)}
        public = await put_state(self.blobs, state)
        first = await self.store.tasks.newest_adapter(TASK)
        await self.store.tasks.append_adapter(AdapterRow(TASK, 1, first.digest, first.digest, 1, 2, public))

    async def begin_round(self) -> None:
        """Open the task's first round."""
        invited = {ClientId(name) for name in await add_clients(self.store, 3)}
        view = RoundView("gather", {"joined": 0}, 5.0)
        await self.store.rounds.open(Opening(ROUND, TASK, 1, 1, b"offer", [invited]), [view], 1)

    async def refusal(self, name: str) -> ConfigError | None:
        """Edit the task's method; return why that is refused."""
        try:
            assert await self.publisher.publish(self.task(name, version=2), 3)
        except ConfigError as error:
            return error
        return None


@pytest.fixture
async def desk(tmp_path: Path, base: Path, database: Databases) -> AsyncIterator[Desk]:
    async with await Store.open(database.place(tmp_path / "fedit.db"), migrate=True) as store:
        blobs = DiskBlobs(tmp_path / "blobs")
        yield Desk(base, store, blobs, Publisher(store, blobs, tmp_path / "adapters", signed))


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fedex_lora", "fedavg"),
        ("flora", "flexlora"),
        ("fedit_rs", "ditto"),
        ("fedit_rs1", "fedavg"),
        ("fedex_lora", "fedit_rs"),
        ("fedit_rs", "fedex_lora"),
    ],
)
async def test_a_method_that_does_not_carry_on_the_side_delta_is_refused(old: str, new: str, desk: Desk) -> None:
    await desk.made(old)
    error = await desk.refusal(new)
    assert error is not None
    assert error.code == "C016"
    assert f"method.name = {new} does not carry on the side delta of {old}" in str(error)
    assert f"keep method.name = {old}; or begin another task" in (error.fix or "")


@pytest.mark.sqlite
@pytest.mark.parametrize(("old", "new"), [("fedex_lora", "flora"), ("fedit_rs", "fedit_rs1"), ("fedavg", "fedit_rs")])
async def test_a_method_that_carries_it_on_is_taken(old: str, new: str, desk: Desk) -> None:
    await desk.made(old, side=old != "fedavg")
    assert await desk.refusal(new) is None


@pytest.mark.sqlite
async def test_before_there_is_a_side_delta_any_method_may_follow(desk: Desk) -> None:
    await desk.made("fedit_rs", side=False)
    assert await desk.refusal("fedavg") is None


async def test_a_round_that_is_open_may_make_one(desk: Desk) -> None:
    assert await desk.publisher.publish(desk.task("fedex_lora"), 1)
    await desk.begin_round()
    error = await desk.refusal("fedavg")
    assert error is not None
    assert error.code == "C016"


async def test_a_round_that_begins_between_the_check_and_the_change_is_seen(desk: Desk) -> None:
    assert await desk.publisher.publish(desk.task("fedex_lora"), 1)
    checked = await desk.publisher.prepare(desk.task("fedavg", version=2), 2)
    assert checked is not None
    await desk.begin_round()
    with pytest.raises(ConfigError, match="a round of notes began") as refused:
        await desk.store.tasks.publish(checked, 3)
    assert refused.value.code == "C016"
    known = await desk.store.tasks.task(TASK)
    assert known is not None
    assert known.document.task.method.name == "fedex_lora"


@pytest.mark.sqlite
async def test_a_change_that_no_round_can_spoil_waits_for_none(desk: Desk) -> None:
    assert await desk.publisher.publish(desk.task("fedex_lora"), 1)
    checked = await desk.publisher.prepare(desk.task("flora", version=2), 2)
    assert checked is not None
    await desk.begin_round()
    await desk.store.tasks.publish(checked, 3)


def test_which_methods_may_follow_each_other_is_decided_by_what_they_keep() -> None:
    keep = {old: {new for new in MethodName if not loses_side(old, new)} for old in MethodName}
    trusted = {MethodName.FLORA, MethodName.FEDEX_LORA}
    sketched = {MethodName.FEDIT_RS, MethodName.FEDIT_RS1}
    for old, able in keep.items():
        assert able == (trusted if old in trusted else sketched if old in sketched else set(MethodName))


@pytest.mark.sqlite
async def test_another_task_begins_with_the_factors_and_the_side_delta(desk: Desk, tmp_path: Path) -> None:
    """The way that the refusal names: the folder of a version is one adapter of all that was learned."""
    document = resolve(desk.task("fedex_lora"), read_folder(desk.base))
    adapter = first_adapter(document.layout, 5) + np.float32(0.25)
    factors = {pair.path: (np.ones((pair.m, 1)), np.full((1, pair.n), 0.5)) for pair in lora_pairs(document.layout)}
    content = to_safetensors(document.layout, adapter)
    edition = Edition(version=1, digest=digest_of(content))
    write_peft_folder(tmp_path / "folder", document, content, edition, as_state(SIDE, factors))
    wider = resolve(desk.task("fedavg", adapter={"rank": 3, "alpha": 3.0}), read_folder(desk.base))
    begun = read_adapter(tmp_path / "folder", wider)
    for pair, wide in zip(lora_pairs(document.layout), lora_pairs(wider.layout), strict=True):
        (a, b), (wide_a, wide_b) = pair.factors(adapter), wide.factors(begun)
        left, right = factors[pair.path]
        assert np.allclose(wide_b @ wide_a, document.task.adapter.alpha / 2 * b @ a + left @ right, rtol=1e-5)
