"""A task with noise over real HTTPS: devices and operator hear the same epsilon; a server that lies is found out."""

from pathlib import Path

import pytest

from fedit_client import ClientConfig
from fedit_client.events import EventKind
from fedit_client.running.standing import standing
from fedit_protocol.accounting import spent_after
from fedit_protocol.errors import ConfigError, SecurityError
from fedit_protocol.messages import PrivacySpent
from fedit_protocol.secagg.ring import ring_spec
from fedit_protocol.task import Task
from fedit_server.commands.words import status_lines
from fedit_server.rounds import candidates
from fedit_server.storage.rows import TaskRow
from fedit_server.tasks.publishing import check_succession

from ..server.bases import make_base
from .federation import StepTrainer, all_take_part, exact_task, federation

pytest.importorskip("dp_accounting", reason="the extra dp is not installed")

DEVICES = 4


def noisy(base: Path, z: float = 2.0) -> Task:
    known = exact_task(base, DEVICES).model_dump(mode="json")
    encoding = known["encoding"] | {"clip_norm": 1.0, "max_weight": 1}
    adapter = known["adapter"] | {"rank": 2}
    privacy = {"noise_multiplier": z, "accept_weak": True}
    return Task.model_validate(known | {"encoding": encoding, "adapter": adapter, "privacy": privacy})


async def test_operator_and_devices_hear_the_same_epsilon(tmp_path: Path) -> None:
    async with federation(tmp_path, noisy(make_base(tmp_path / "base"))) as fed:
        clients = [fed.client(f"device-{n}", StepTrainer(place=n)) for n in range(DEVICES)]
        everything = await all_take_part(clients, max_rounds=1)
        parts = fed.server.parts
        (task,) = await parts.store.tasks.tasks()
        (row,) = await parts.store.rounds.rounds(task.task_id)
        ring = ring_spec(task.document.task, task.document.layout.size)
    spent = spent_after(ring, 1)
    assert spent is not None
    assert row.figures is not None
    assert row.figures.report["epsilon"] == spent.total_epsilon
    assert row.figures.report["train_loss"] is None  # no figure beside the noise
    for events in everything:
        (text,) = [event.text for event in events if event.kind is EventKind.ROUND_COMMITTED]
        assert f"epsilon ≤ {spent.total_epsilon:.3g} after 1 round" in text
    for number in range(DEVICES):
        told = standing(ClientConfig.model_validate({"home": tmp_path / f"device-{number}"}))
        assert told.epsilon == pytest.approx(spent.total_epsilon)
        assert any("epsilon" in line for line in told.lines())


async def test_a_server_that_states_less_than_its_noise_gives_is_an_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flattered(task: TaskRow, round_no: int) -> PrivacySpent | None:
        honest = candidates.spent(task, round_no)
        return honest and honest.model_copy(update={"total_epsilon": 0.1})

    monkeypatch.setattr("fedit_server.rounds.endings.spent", flattered)
    async with federation(tmp_path, noisy(make_base(tmp_path / "base"))) as fed:
        clients = [fed.client(f"device-{n}", StepTrainer(place=n)) for n in range(DEVICES)]
        with pytest.raises((SecurityError, ExceptionGroup)) as error:
            await all_take_part(clients, max_rounds=1)
    assert "another epsilon" in repr(error.value)


async def test_the_noise_of_a_task_never_changes(tmp_path: Path) -> None:
    async with federation(tmp_path, noisy(make_base(tmp_path / "base"))) as fed:
        (row,) = await fed.server.parts.store.tasks.tasks()
    old = row.document
    privacy = old.task.privacy
    assert privacy is not None
    louder = old.task.model_copy(update={"privacy": privacy.model_copy(update={"noise_multiplier": 3.0})})
    for task in (louder, old.task.model_copy(update={"privacy": None})):
        with pytest.raises(ConfigError, match="other noise"):
            check_succession(old, old.model_copy(update={"task": task}))
    check_succession(old, old)


def test_status_says_epsilon() -> None:
    report = {"epsilon": 4.25, "round_epsilon": 2.5, "delta": 1e-5, "survivors": 4, "examples": 0, "train_loss": None}
    task = {
        "id": "t", "version": 1, "title": "T", "state": "active", "reason": "", "committed": 2, "rounds": 3,
        "failed": 0, "adapter_version": 2, "last_report": report | {"held_out_loss": None}, "round": None,
        "mode": "masked", "held": None, "suspects": [], "devices_needed": 4,
    }  # fmt: skip
    authority = {"apart": False, "waiting": 0, "waiting_since": None}
    data = {
        "server": {"running": False}, "authority": authority, "clients": {"enrolled": 4}, "tasks": [task],
        "last_backup": None, "certificate": None,
    }  # fmt: skip
    assert "  last     epsilon 4.25 so far, 2.5 in one round, at delta 1e-05 (4 devices)" in status_lines(data)
