"""Retention: what a task keeps, what goes, and that a run which was killed in between is finished by the next."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.testing import ManualClock
from fedit_server.adapters.collecting import Collector
from fedit_server.cli import run
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.mentions import check_blobs, mentioned
from fedit_server.storage.rows import AdapterRow
from fedit_server.tasks.base_model import read_folder
from fedit_server.tasks.files import load_task
from fedit_server.tasks.retention import Retention, load_retention

from .bases import make_base, small_task
from .conftest import Running, start
from .test_rounds import play

TASK = TaskId("notes")

BEYOND = {
    "nothing without a rule": (Retention(), set()),
    "all but the newest": (Retention(keep_last=1), {0, 1, 2, 3, 4, 5, 6}),
    "all but the last three": (Retention(keep_last=3), {0, 1, 2, 3, 4}),
    "and every third": (Retention(keep_last=1, keep_every=3), {1, 2, 4, 5}),
    "more than there are": (Retention(keep_last=99), set()),
    "every third alone keeps all": (Retention(keep_every=3), set()),
}


@pytest.mark.parametrize("case", BEYOND.values(), ids=BEYOND)
def test_what_is_beyond_retention(case: tuple[Retention, set[int]]) -> None:
    rules, gone = case
    assert rules.beyond(range(8)) == gone
    assert rules.beyond(range(8), needed={2}) == gone - {2}
    assert rules.beyond([]) == set()


def test_a_task_file_states_it_and_devices_never_see_it(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text('id = "t"\ntitle = "T"\n[base]\nmodel = "org/name"\n[retention]\nkeep_last = 5\nrounds_days = 30\n')
    assert "retention" not in load_task(path).model_dump()
    assert load_retention(path) == Retention(keep_last=5, rounds_days=30)
    path.write_text(path.read_text().replace("rounds_days", "days"))
    with pytest.raises(ConfigError) as wrong:
        load_task(path)
    assert (wrong.value.code, str(wrong.value).split(":")[0]) == ("C103", "retention.days")


async def grown(running: Running, versions: int) -> None:
    """Let there be so many further versions, each with a content, a blob that is a week old, and a folder."""
    store, blobs = running.parts.store, running.parts.blobs
    before = await store.tasks.newest_adapter(TASK)
    task = await store.tasks.task(TASK)
    assert task is not None
    for number in range(1, versions + 1):
        digest = await blobs.put(b"content of version %d" % number)
        made = AdapterRow(TASK, number, digest, before.digest, number, 0)
        await store.tasks.append_adapter(made)
        adapter_folder(running.home.adapters, TASK, number).mkdir(parents=True)
        before = made
    age(running, days=7)


def age(running: Running, days: float) -> None:
    then = (running.clock() - timedelta(days=days)).timestamp()
    for path in running.home.blobs.rglob("*"):
        os.utime(path, (then, then))


def collector(running: Running) -> Collector:
    return Collector(running.parts.store, running.parts.blobs, running.parts.spool, running.home.adapters)


async def test_contents_beyond_retention_go_and_the_chain_of_digests_stays(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        await grown(running, 6)
        store = running.parts.store
        chain = await store.tasks.adapters(TASK)
        await store.retentions.give(TASK, Retention(keep_last=2, keep_every=4))
        seen = await collector(running).look(clock())
        assert [one.version for one in seen.versions] == [1, 2, 3]
        assert len(seen.blobs) == 3
        assert await store.retentions.retired() == set()
        done = await collector(running).collect(clock())
        assert (done.versions, {one.digest for one in done.blobs}) == (
            seen.versions,
            {chain[i].digest for i in (1, 2, 3)},
        )
        assert await store.tasks.adapters(TASK) == chain
        assert sorted(path.name for path in (running.home.adapters / TASK).iterdir()) == ["0", "4", "5", "6"]
        assert (await check_blobs(store.database, running.parts.blobs)).wrong == []
        for version in (0, 4, 5, 6):
            assert await running.parts.blobs.get(chain[version].digest)
        assert (await collector(running).collect(clock())).as_data()["blobs"] == []
        with pytest.raises(ConfigError) as gone:
            await running.parts.admin.roll_back(None, 2)
        assert gone.value.code == "U106"


@pytest.mark.slow
async def test_a_content_that_a_kept_version_has_too_stays(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        await grown(running, 3)
        store = running.parts.store
        newest, second = await store.tasks.newest_adapter(TASK), await store.tasks.adapter(TASK, 2)
        await store.tasks.append_adapter(AdapterRow(TASK, 4, second.digest, newest.digest, 2, 0))  # a rollback
        await store.retentions.give(TASK, Retention(keep_last=1))
        await collector(running).collect(clock())
        assert await mentioned(store.database) == {second.digest}
        assert await running.parts.blobs.get(second.digest)


async def test_what_an_open_round_starts_from_and_what_is_young_stays(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        await asyncio.gather(*(device.offer() for device in devices))
        await grown(running, 2)  # as rollbacks would, while the round runs
        await running.parts.store.retentions.give(TASK, Retention(keep_last=1))
        assert [one.version for one in (await collector(running).look(clock())).versions] == [1]
        assert await running.parts.blobs.put(b"its row is on the way")
        assert len((await collector(running).collect(clock())).blobs) == 1


async def test_who_was_in_old_rounds_is_forgotten_and_results_stay(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices, store = await running.join(3), running.parts.store
        await play(running, devices, {})
        result = await devices[0].result()
        (row,) = await store.rounds.rounds(TASK)
        await store.retentions.give(TASK, Retention(rounds_days=30))
        assert (await collector(running).collect(clock())).rounds == ()
        clock.advance(seconds=31 * 86_400)
        assert (await collector(running).look(clock())).rounds == (row.round_id,)
        assert (await collector(running).collect(clock())).rounds == (row.round_id,)
        assert await store.rounds.invited(row.round_id) == []
        (after,) = await store.rounds.rounds(TASK)
        assert (after.result, after.figures) == (row.result, row.figures)
        assert result.adapter_version == 1
        assert (await collector(running).collect(clock())).rounds == ()


class Dying(DiskBlobs):
    """A store whose machine loses its power at the second removal."""

    removed = 0

    async def remove(self, digest: Digest) -> None:
        self.removed += 1
        if self.removed == 2:
            raise KeyboardInterrupt
        await super().remove(digest)


async def test_a_run_that_is_killed_in_between_is_finished_by_the_next(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    manifest = read_folder(base).digest
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        await grown(running, 5)
        store = running.parts.store
        await store.retentions.give(TASK, Retention(keep_last=1))
        os.utime(DiskBlobs(running.home.blobs).path(manifest), (0, 0))
        dying = replace(collector(running), blobs=Dying(running.home.blobs))
        with pytest.raises(KeyboardInterrupt):
            await dying.collect(clock())
        assert len(await store.retentions.retired()) == 5
        assert (await check_blobs(store.database, running.parts.blobs)).wrong == []
        await collector(running).collect(clock())
        newest = await store.tasks.newest_adapter(TASK)
        assert {one.digest async for one in running.parts.blobs.stored()} == {newest.digest, manifest}
        assert [path.name for path in (running.home.adapters / TASK).iterdir()] == ["5"]


@pytest.mark.slow
def test_the_commands_show_set_and_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def make() -> None:
        async with start(tmp_path / "home", ManualClock(), small_task(make_base(tmp_path / "base"))) as running:
            await grown(running, 4)

    asyncio.run(make())

    def said(*words: str) -> str:
        assert run(["--home", str(tmp_path / "home"), *words]) == 0
        return capsys.readouterr().out

    assert "every version" in said("task", "retention")
    assert "the newest 2 versions and every 3th" in said("task", "retention", "--keep-last", "2", "--keep-every", "3")
    assert "notes version 1: content beyond retention" in said("adapter", "prune", "--dry-run")
    assert "notes version 2" in said("adapter", "prune")
    assert "0 blobs" in said("adapter", "prune")
