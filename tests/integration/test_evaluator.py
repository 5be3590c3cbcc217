"""An evaluator over real HTTPS: it sees held steps, compares them on its own rows, and its word decides."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedit_client import Client, ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.evaluator import EvaluationWishes, evaluate
from fedit_client.testing import FakeEvaluator
from fedit_protocol.encoding import encode
from fedit_protocol.errors import ConsentError, MembershipError
from fedit_protocol.ids import ClientId, TaskId
from fedit_protocol.task import Task
from fedit_server.storage.rows import RoundRow, RoundState

from ..server.bases import make_base
from ..tiny_llama import make_tiny_llama
from .federation import Federation, StepTrainer, all_take_part, exact_task, federation, take_part

ROWS = [{"instruction": f"say {word}", "response": word} for word in ("red", "green", "blue")]


def guarded(base: Path, rounds: int = 1, **gates: object) -> Task:
    """Return a task whose steps wait for evaluators."""
    task = exact_task(base, 3, rounds=rounds).model_dump(mode="json")
    return Task.model_validate({**task, "gates": {"max_loss_ratio": 1.0, **gates}})


@dataclass
class Scene:
    """A federation, and a device that evaluates and does not train."""

    fed: Federation
    config: ClientConfig
    rows: Path
    client: Client

    async def appoint(self) -> None:
        """Make the device an evaluator, as `fedit-server evaluator add` does."""
        store = self.fed.server.parts.store
        (device,) = [row for row in await store.members.clients() if row.label == "evaluator"]
        await store.candidates.appoint(ClientId(device.client_id), 1)

    async def evaluate(self, evaluator: FakeEvaluator, *, watch: bool = False) -> list[dict[str, Any]]:
        wishes = EvaluationWishes(data=(self.rows,), watch=watch)
        return await evaluate(self.config, Console(json=True), wishes, evaluator)

    async def round(self) -> RoundRow:
        return (await self.fed.server.parts.store.rounds.rounds())[-1]


@asynccontextmanager
async def scene(folder: Path, task: Task) -> AsyncIterator[Scene]:
    rows = folder / "held_out.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    async with federation(folder, task) as fed:
        config = ClientConfig.model_validate({"home": folder / "evaluator", "network": {"max_wait_s": 0.5}})
        async with Client.open(fed.invite, config=config, trainer=StepTrainer()) as client:
            client.add_data(rows)
            offer = await client.fetch_offer()
            await client.join(consent=offer.accept(), label="evaluator")
            yield Scene(fed, config, rows, client)


@pytest.mark.parametrize(("after", "end"), [(1.5, RoundState.COMMITTED), (2.5, RoundState.FAILED)])
async def test_a_held_step_goes_as_the_evaluator_says(
    tmp_path: Path, after: float, end: RoundState, capsys: pytest.CaptureFixture[str]
) -> None:
    async with scene(tmp_path, guarded(make_base(tmp_path / "base", layers=2), max_norm=100.0)) as here:
        await here.appoint()
        evaluator = FakeEvaluator(after=after)
        watching = asyncio.create_task(here.evaluate(evaluator, watch=True))
        clients = [here.fed.client(f"device-{number}", StepTrainer(place=number)) for number in range(3)]
        staying = [asyncio.create_task(take_part(client, 1)) for client in clients]
        await decided(here)
        for task in (*staying, watching):
            task.cancel()
        await asyncio.gather(*staying, watching, return_exceptions=True)
        row = await here.round()
    (request,) = evaluator.requests[:1]
    (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()][:1]
    assert row.state is end
    assert [record.messages[0].content for record in request.records] == ["say red", "say green", "say blue"]
    assert [(one.loss_before, one.loss_after, one.rows) for one in row.evaluations] == [(2.0, after, 3)]
    assert (told["kind"], told["round"], told["state"], told["became"]) == ("evaluated", 1, "held", "reported")
    assert list((tmp_path / "evaluator" / "cache" / "candidates").iterdir()) == []


async def decided(here: Scene) -> None:
    """Wait until the first round is committed or has failed."""
    parts = here.fed.server.parts
    bell = parts.coordinator.bell_of(TaskId("exact"))
    while True:
        ear = bell.listen()
        rounds = await parts.store.rounds.rounds()
        if rounds and rounds[0].state in (RoundState.COMMITTED, RoundState.FAILED):
            return
        await ear.wait(5)


async def test_once_evaluates_the_newest_published_adapter(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base", layers=2), 3)
    async with scene(tmp_path, task) as here:
        await here.appoint()
        with pytest.raises(MembershipError) as early:
            await here.evaluate(FakeEvaluator())
        await all_take_part([here.fed.client(f"device-{n}", StepTrainer(place=n)) for n in range(3)], max_rounds=1)
        (first,) = await here.evaluate(FakeEvaluator(after=7.0))
        (again,) = await here.evaluate(FakeEvaluator(after=8.0))
        row = await here.round()
    assert early.value.code == "J004"
    assert (first["state"], first["adapter_version"], first["became"]) == ("committed", 1, "reported")
    assert again["became"] == "reported before"
    assert [one.loss_after for one in row.evaluations] == [7.0]


async def test_a_device_that_nobody_appointed_is_told_whom_to_ask(tmp_path: Path) -> None:
    async with scene(tmp_path, exact_task(make_base(tmp_path / "base"), 3)) as here:
        with pytest.raises(MembershipError) as refused:
            await here.evaluate(FakeEvaluator())
        (device,) = await here.fed.server.parts.store.members.clients()
    assert refused.value.code == "J005"
    assert refused.value.fix == f"ask the organiser: fedit-server evaluator add {device.client_id[:12]}"


async def test_another_server_than_the_joined_one_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path, exact_task(make_base(tmp_path / "base"), 3)) as here:
        wishes = EvaluationWishes("https://fl.example.org:8443", (here.rows,))
        with pytest.raises(MembershipError, match=r"not fl\.example\.org:8443") as other:
            await evaluate(here.config, Console(json=True), wishes, FakeEvaluator())
        membership = here.client.require_membership()
        known = EvaluationWishes(f"https://{membership.host}:{membership.port}", (here.rows,))
        with pytest.raises(MembershipError, match="no evaluator"):
            await evaluate(here.config, Console(json=True), known, FakeEvaluator())
    assert other.value.code == "J002"


async def test_a_task_that_changed_is_not_evaluated_unseen(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", layers=2)
    async with scene(tmp_path, exact_task(base, 3, rounds=2)) as here:
        await here.appoint()
        await all_take_part([here.fed.client(f"device-{n}", StepTrainer(place=n)) for n in range(3)], max_rounds=1)
        membership = here.client.require_membership()
        document = membership.task_document
        old = document.model_copy(update={"task": document.task.model_copy(update={"title": "what it was"})})
        membership.model_copy(update={"document": encode(old)}).save(here.config.paths.membership_file)
        with pytest.raises(ConsentError) as changed:
            await here.evaluate(FakeEvaluator())
    assert changed.value.code == "A003"


@pytest.mark.training
@pytest.mark.timeout(240)
async def test_a_real_model_compares_a_step_with_its_parent(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    task = exact_task(base, 3).model_dump(mode="json")
    task["base"]["quantization"] = "fp32"
    task["adapter"] |= {"rank": 4, "dropout": 0.0}
    async with scene(tmp_path, Task.model_validate(task)) as here:
        await here.appoint()
        clients = [here.fed.client(f"device-{n}", StepTrainer(place=n, steps=100)) for n in range(3)]
        await all_take_part(clients, max_rounds=1)
        wishes = EvaluationWishes(data=(here.rows,))
        (found,) = await evaluate(here.config, Console(json=True), wishes)
        row = await here.round()
    (report,) = row.evaluations
    assert found["rows"] == 3
    assert 0 < found["loss_before"] < 20
    assert 0 < found["loss_after"] < 20
    assert (report.loss_before, report.loss_after, report.tokens) == (
        found["loss_before"], found["loss_after"], found["tokens"]
    )  # fmt: skip


async def test_ctrl_c_ends_a_watch_with_a_word(tmp_path: Path) -> None:
    async with scene(tmp_path, exact_task(make_base(tmp_path / "base"), 3)) as here:
        await here.appoint()
        program = [sys.executable, "-m", "fedit_client", "--home", str(tmp_path / "evaluator")]
        words = ["eval", "--watch", "--data", str(here.rows), "--device", "cpu"]
        # Tests that are started in the background inherit that SIGINT is ignored; a terminal's programs do not.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = await asyncio.create_subprocess_exec(
            *program, *words, stdout=asyncio.subprocess.PIPE, preexec_fn=heard
        )
        assert process.stdout is not None
        while b"Ctrl-C ends" not in await process.stdout.readline():
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        rest = await process.stdout.read()
        status = await process.wait()
    assert (status, rest) == (130, b"stopped; reports that were sent stay with the server\n")
