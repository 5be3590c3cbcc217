"""Tasks beside a running server: made, edited, opened, paused, closed and archived, each with a signed line."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.catalogue import TaskList, TaskState
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey, TaskId
from fedit_protocol.messages import RoundOutcome, WaitReason
from fedit_protocol.task import Task, TaskDocument
from fedit_protocol.task_record import TaskRecord, check_record
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.admin.live_rounds import order_round
from fedit_server.admin.operations import Admin
from fedit_server.admin.tasks import TaskDesk
from fedit_server.cli import run
from fedit_server.commands.editor import edit_text
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.keys.rotation import rotate
from fedit_server.storage.round_orders import RoundOrder
from fedit_server.storage.rows import RoundState, TaskRow
from fedit_server.tasks.base_model import read_folder
from fedit_server.tasks.editing import plan_edit, task_toml
from fedit_server.tasks.files import load_task, resolve
from fedit_server.tasks.lifecycle import TRANSITIONS, Verb

from .bases import make_base, small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot
from .test_rounds import TASK, newest_round, play, size_of, take_step

OTHER = TaskId("other")
ONCE = pytest.mark.sqlite
"""What has nothing to do with the kind of database."""


def other(base: Path, **top: object) -> Task:
    return small_task(base, adapter={"rank": 1}, top={"id": OTHER, "title": "Other", **top})


class Beside:
    """What an operator's commands do in another process than the server's."""

    def __init__(self, home: Path) -> None:
        self._config = ServerConfig(home=home)

    async def create(self, task: Task, **how: Any) -> TaskState:
        async with Admin.open(self._config) as admin:
            return (await TaskDesk(admin).create(task, **how)).state

    async def edit(self, name: str, task: Task) -> list[str]:
        async with Admin.open(self._config) as admin:
            return [change.name for change in (await TaskDesk(admin).edit(name, task)).changes]

    async def roll_back(self, version: int) -> None:
        async with Admin.open(self._config) as admin:
            await admin.roll_back(None, version)

    async def change(self, verb: Verb, name: str | None = None, reason: str = "") -> TaskState:
        async with Admin.open(self._config) as admin:
            return (await TaskDesk(admin).change(name, verb, reason)).state

    async def record(self, name: str | None = None) -> list[tuple[str, str, int]]:
        async with Admin.open(self._config) as admin:
            return [(line["kind"], line["state"], line["version"]) for line in await TaskDesk(admin).record(name)]

    async def order(self, number: int, order: RoundOrder, reason: str = "") -> None:
        async with Admin.open(self._config) as admin:
            await order_round(admin, None, number, order, reason=reason)


async def seen(running: Running, task: TaskId, state: TaskState, version: int = 1) -> bool:
    runner = running.parts.coordinator._runners.get(task)
    return runner is not None and (runner.task.state, runner.task.version) == (state, version)


async def listed(device: Device) -> dict[str, str]:
    tasks = decode(TaskList, await device.call("GET", "/v1/tasks")).tasks
    return {decode(TaskDocument, one.document).task.label: one.state for one in tasks}


async def train(devices: list[Device], task: str, size: int) -> list[RoundOutcome]:
    """Play one round of a task with every device."""
    offers = await asyncio.gather(*(device.offer(task) for device in devices))
    parts = [d.take_part(one_hot(size, i), offer=o) for i, (d, o) in enumerate(zip(devices, offers, strict=True))]
    await asyncio.gather(*parts)
    return [(await device.result()).outcome for device in devices]


async def refusal(work: Any) -> tuple[str, str]:
    """Return the code of an operator's error, and the command that helps."""
    with pytest.raises(ConfigError) as refused:
        await work
    return refused.value.code, refused.value.fix or ""


@ONCE
async def test_a_task_made_beside_the_server_trains_without_a_restart(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base)) as running:
        devices = await running.join(3)
        assert await Beside(home).create(other(base), owner="the ward") is TaskState.ACTIVE
        await running.until(lambda: seen(running, OTHER, TaskState.ACTIVE))
        assert await listed(devices[0]) == {"notes@1": "active", "other@1": "active"}
        assert await train(devices, OTHER, 8 + 8 + 8 + 4) == [RoundOutcome.COMMITTED] * 3
        row = await running.parts.store.tasks.task(OTHER)
        assert row is not None
        assert row.owner == "the ward"


@ONCE
async def test_a_draft_is_nobodys_business_until_it_is_opened(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base), long_poll_s=0.05) as running:
        (device,) = await running.join(1)
        beside = Beside(home)
        assert await beside.create(other(base), draft=True) is TaskState.DRAFT
        assert await beside.edit(OTHER, other(make_base(tmp_path / "second", layers=2), title="Better")) == [
            "title",
            "base.model",
        ]
        await running.until(lambda: seen(running, OTHER, TaskState.DRAFT))
        assert await listed(device) == {"notes@1": "active"}
        with pytest.raises(RefusedError) as unknown:
            await device.check_in(OTHER)
        assert unknown.value.type == ProblemType.UNKNOWN_TASK
        assert await beside.change(Verb.OPEN, OTHER) is TaskState.ACTIVE
        await running.until(lambda: seen(running, OTHER, TaskState.ACTIVE))
        assert (await device.check_in(OTHER)).reason is WaitReason.GATHERING
        assert await beside.record(OTHER) == [("created", "draft", 1), ("edited", "draft", 1), ("opened", "active", 1)]


@ONCE
async def test_an_edited_task_ends_its_round_under_the_old_version_and_waits_for_consent(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    longer = small_task(base, round={"rounds": 3}, top={"title": "Longer notes"})
    async with start(home, clock, small_task(base), long_poll_s=0.5) as running:
        devices = await running.join(4)
        offers = await asyncio.gather(*(device.offer() for device in devices[:3]))
        assert await Beside(home).edit(TASK, longer) == ["title", "round.rounds"]
        await running.until(lambda: seen(running, TASK, TaskState.ACTIVE, 2))
        assert (await devices[3].check_in()).reason is WaitReason.TASK_CHANGED
        assert (await devices[3].check_in(version=2)).reason is WaitReason.ROUND_RUNNING
        size = await size_of(running)
        await asyncio.gather(
            *(device.take_part(one_hot(size, i), offer=offers[i]) for i, device in enumerate(devices[:3]))
        )
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
        assert (await newest_round(running)).task_version == 1
        assert (await devices[0].check_in()).reason is WaitReason.TASK_CHANGED
        again = [asyncio.create_task(agreed(device, 2)) for device in devices]
        done, waiting = await asyncio.wait(again, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        assert devices[0].accept(done.pop().result()).offer.task_version == 2


async def agreed(device: Device, version: int) -> bytes:
    """Check in with a yes to a version until there is an offer."""
    while True:
        reply = await device.check_in(version=version)
        if reply.offer is not None:
            return reply.offer


@ONCE
async def test_a_round_of_an_older_version_goes_on_after_a_restart(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home, task = tmp_path / "home", small_task(base)
    async with start(home, clock, task) as running:
        devices = await running.join(3)
        offers = await asyncio.gather(*(device.offer() for device in devices))
        for device, offer in zip(devices, offers, strict=True):
            device.accept(offer)
        await take_step(running, devices, STEPS[0], {})
        await Beside(home).edit(TASK, small_task(base, top={"title": "Other words"}))
    async with start(home, clock) as running:
        for device in devices:
            device.http = running.http
        for name in STEPS[1:]:
            await take_step(running, devices, name, {})
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
        row = await newest_round(running)
    assert (row.state, row.task_version) == (RoundState.COMMITTED, 1)


async def test_an_archived_task_is_gone_for_devices_and_stays_for_the_operator(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base), long_poll_s=0.05) as running:
        (device,) = await running.join(1)
        beside = Beside(home)
        assert await refusal(beside.change(Verb.ARCHIVE)) == ("U120", "fedit-server task close notes")
        assert await beside.change(Verb.CLOSE, reason="enough") is TaskState.FINISHED
        await running.until(lambda: seen(running, TASK, TaskState.FINISHED))
        assert (await device.check_in()).reason is WaitReason.TASK_FINISHED
        assert await refusal(beside.change(Verb.RESUME)) == (
            "U120", "publish a new version with more rounds: fedit-server task edit notes FILE",
        )  # fmt: skip
        assert await beside.change(Verb.ARCHIVE) is TaskState.ARCHIVED
        await running.until(lambda: seen(running, TASK, TaskState.ARCHIVED))
        assert await listed(device) == {}
        with pytest.raises(RefusedError) as gone:
            await device.check_in()
        assert "archived" in gone.value.problem["detail"]
        changed = small_task(base, top={"title": "New"})
        for work in (beside.change(Verb.OPEN), beside.edit(TASK, changed), beside.roll_back(0)):
            assert (await refusal(work))[0] == "U120"
        assert (await refusal(beside.create(small_task(base))))[0] == "U121"
        assert [kind for kind, *_ in await beside.record()] == ["created", "closed", "archived"]


async def test_a_finished_task_with_more_rounds_goes_on(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base, round={"rounds": 1})) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        await running.until(lambda: seen(running, TASK, TaskState.FINISHED))
        await Beside(home).edit(TASK, small_task(base, round={"rounds": 2}))
        await running.until(lambda: seen(running, TASK, TaskState.ACTIVE, 2))
        offers = await asyncio.gather(*(agreed(device, 2) for device in devices))
        assert devices[0].accept(offers[0]).offer.adapter_version == 1
        assert await Beside(home).record() == [
            ("created", "active", 1), ("closed", "finished", 1), ("edited", "active", 2),
        ]  # fmt: skip


@ONCE
async def test_a_task_cannot_be_closed_under_a_round(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base)) as running:
        devices = await running.join(3)
        await asyncio.gather(*(device.offer() for device in devices))
        assert await refusal(Beside(home).change(Verb.CLOSE)) == ("U120", "fedit-server task pause notes")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing changes": ({}, "U125"),
    "another id": ({"top": {"id": "elsewhere"}}, "C120"),
    "another rank": ({"adapter": {"rank": 3}}, "C016"),
    "another alpha": ({"adapter": {"alpha": 32.0}}, "C016"),
    "an older version": ({"top": {"version": 1, "title": "Older"}}, "C015"),
}


@ONCE
@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES)
async def test_an_edit_that_cannot_be_is_refused_before_anything_is_written(
    case: tuple[dict[str, Any], str], tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    sections, code = case
    home = tmp_path / "home"
    async with start(home, clock, small_task(base, top={"version": 2})) as running:
        sections = {**sections, "top": {"version": 2, **sections.get("top", {})}}
        assert (await refusal(Beside(home).edit(TASK, small_task(base, **sections))))[0] == code
        row = await running.parts.store.tasks.task(TASK)
        assert row is not None
        assert row.version == 2
        assert len(await running.parts.store.records.lines(TASK)) == 1


@ONCE
async def test_the_base_of_a_task_stays(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home, changed = tmp_path / "home", make_base(tmp_path / "changed", model_type="mistral")
    async with start(home, clock, small_task(base)):
        assert (await refusal(Beside(home).edit(TASK, small_task(changed))))[0] == "C016"


@ONCE
async def test_anybody_can_check_the_record_also_after_a_change_of_key(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base)) as running:
        await Beside(home).change(Verb.PAUSE, reason="holidays")
        first = running.parts.identity.descriptor
    await rotate(Home(home), lost=False)
    async with start(home, clock) as running:
        described = running.parts.identity.descriptor
        async with running.http.get("/v1/tasks/notes/record/1") as reply:
            changes = decode(TaskRecord, await reply.read()).changes
        async with running.http.get("/v1/tasks/none/record/1") as reply:
            assert reply.status == 404
    lines = check_record(changes, described.federation_id, TASK, IdentityKey(described.server_key))
    assert [(line.kind, line.by, line.reason) for line in lines][1] == ("paused", "operator", "holidays")
    assert lines[-1].kind == "continued"
    assert first.server_key != described.server_key
    with pytest.raises(SecurityError, match="line 3"):
        check_record(changes, described.federation_id, TASK, IdentityKey(first.server_key))


@ONCE
def test_a_task_is_edited_in_the_editor_of_ones_choice(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "sed -i s/Notes/Votes/")
    document = resolve(small_task(base), read_folder(base))
    known = TaskRow(TASK, 1, TaskState.ACTIVE, "", 0, small_task(base).model_dump_json().encode(), b"", document)
    file = tmp_path / "edited.toml"
    file.write_text(edit_text(task_toml(known), "notes.toml"))
    plan = plan_edit(known, load_task(file))
    assert [(change.name, change.old, change.new) for change in plan.changes] == [("title", "Notes", "Votes")]
    assert (plan.task.version, plan.task.round) == (2, small_task(base).round)


def test_the_table_of_transitions_leaves_no_state_without_a_way_on() -> None:
    left = {state for transition in TRANSITIONS.values() for state in transition.allowed}
    assert left == set(TaskState) - {TaskState.ARCHIVED}
    assert set(TRANSITIONS) == set(Verb)


@ONCE
def test_the_commands_say_what_they_did(
    tmp_path: Path, base: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    home, file = tmp_path / "home", tmp_path / "other.toml"

    async def set_up() -> None:
        async with start(home, clock, small_task(base)):
            pass

    asyncio.run(set_up())
    file.write_text(f'id = "other"\ntitle = "Other"\n[base]\nmodel = "{base}"\n')

    def said(*words: str) -> tuple[int, str]:
        status = run(["--home", str(home), *words])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    assert said("task", "create", str(file), "--draft", "--owner", "ward 3")[0] == 0
    assert "FEDIT-U121" in said("task", "create", str(file))[1]
    assert "FEDIT-U122" in said("task", "edit", "other")[1]
    file.write_text(file.read_text().replace("Other", "Another"))
    assert "title: Other → Another" in said("task", "edit", "other", str(file), "--dry-run")[1]
    assert "the draft of other is changed" in said("task", "edit", "other", str(file))[1]
    assert said("task", "open", "other") == (0, "task other is open\n")
    file.write_text(file.read_text() + "[round]\nrounds = 4\n")
    assert "until its owner has agreed to:\n  round.rounds: 10 → 4" in said("task", "edit", "other", str(file))[1]
    assert "ward 3" in said("task", "list")[1]
    assert "4 signed lines without a gap" in said("task", "log", "other")[1]
    assert "FEDIT-U025" in said("task", "pause", "none")[1]
    assert "FEDIT-U025" in said("round", "abort", "1", "--task", "other")[1]
