"""A task is raised to version 2 while devices are joined: they pause, show what changed, and go on after a new yes."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from fedit_client.cli import invoke
from fedit_client.events import Event, EventKind
from fedit_protocol.task import Task

from ..server.bases import make_base
from .federation import ROWS, StepTrainer, TamperedClient, Wire, device, exact_task
from .programs import ServerProcess, write_task


def second_version(task: Task) -> Task:
    prompt = task.prompt.model_copy(update={"cutoff_tokens": 1024})
    policy = task.round.model_copy(update={"cohort_min": 3, "rounds": 2})
    return task.model_copy(update={"version": 2, "operator": "Another Organiser", "prompt": prompt, "round": policy})


class Stay:
    """One device that takes part until it is told to end, and what it said."""

    def __init__(self, client: TamperedClient) -> None:
        self.client = client
        self.events: list[Event] = []
        self.paused, self.committed = asyncio.Event(), asyncio.Event()

    def note(self, event: Event) -> None:
        self.events.append(event)
        if "FEDIT-A003" in event.text:
            self.paused.set()
        if event.kind is EventKind.ROUND_COMMITTED:
            self.committed.set()

    async def run(self) -> None:
        async for _ in self.client.run(on_event=self.note, wait_for_consent=True):
            pass

    def texts(self) -> str:
        return "\n".join(event.text for event in self.events)


async def test_a_changed_task_pauses_its_devices_until_their_owners_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = exact_task(make_base(tmp_path / "base"), 3, rounds=2)
    file = write_task(task, tmp_path)
    homes = [tmp_path / f"device-{number}" for number in range(3)]
    with ServerProcess(tmp_path / "server", file) as server:
        clients = [
            device(str(server.ready["invite"]), home, StepTrainer(place=number), Wire())
            for number, home in enumerate(homes)
        ]
        for client in clients:
            client.add_records(ROWS)
            await client.join(consent=(await client.fetch_offer()).accept())
        stays = [Stay(client) for client in clients]
        running = [asyncio.create_task(stay.run()) for stay in stays]
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(stay.committed.wait() for stay in stays))
                assert await asyncio.to_thread(server.stop) == 0
                write_task(second_version(task), tmp_path)
                await asyncio.to_thread(server.start)
                await asyncio.gather(*(stay.paused.wait() for stay in stays))
                await asyncio.to_thread(decide, homes[0], capsys)
                for client in clients[1:]:
                    offer = await client.fetch_offer()
                    client.agree(offer, offer.accept())
                await asyncio.gather(*running)
        finally:
            for one in running:
                one.cancel()
                with suppress(asyncio.CancelledError):
                    await one
    for stay in stays:
        said = stay.texts()
        assert "the task changed since you agreed (version 1 → 2): who runs it: " in said
        assert "tokens per example: 512 → 1,024" in said
        assert "training is paused; fix: fedit-client consent diff" in said
        assert "you agreed to exact@2: going on" in said
        assert [event.kind for event in stay.events].count(EventKind.ROUND_COMMITTED) == 2


def decide(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Do what the owner does in another terminal, while the client runs and waits."""

    def said(*words: str, status: int = 0) -> tuple[str, str]:
        assert invoke([*words, "--home", str(home)]) == status
        return capsys.readouterr()

    shown = json.loads(said("consent", "show", "--json")[0])["data"]
    assert (shown["task"], shown["pending"], shown["in_force"]) == ("exact@1", "exact@2", True)
    assert {change["setting"] for change in shown["changes"]} == {"operator", "prompt.cutoff_tokens"}
    assert "exact@2 waits for your yes" in said("status")[0]
    out, err = said("consent", "diff", status=7)
    assert "FEDIT-A001" in err
    assert "who runs it: " in out
    assert "→ Another Organiser" in out
    assert "FEDIT-A003" in said("consent", "diff", "--accept", "exact@3", status=7)[1]
    assert "agreed to exact@2" in said("consent", "diff", "--accept", "exact@2")[0]
    shown = json.loads(said("consent", "show", "--json")[0])["data"]
    assert (shown["task"], shown["pending"]) == ("exact@2", None)
    assert [one["label"] for one in shown["decisions"]] == ["exact@1", "exact@2"]
