"""The examples do what they say, against a real HTTPS server."""

import asyncio
import importlib.util
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from fedit_client.testing import FakeTrainer

from .conftest import HttpsFederation

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_quickstart(https: HttpsFederation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt":"say one","completion":"one"}\n' * 20)
    contribute = load("quickstart/quickstart.py").contribute
    async with asyncio.timeout(30):
        adapters = await asyncio.gather(
            *(contribute(https.invite, rows, tmp_path / str(n), lambda _: True, FakeTrainer()) for n in range(3))
        )
    assert all((adapter / "adapter_model.safetensors").exists() for adapter in adapters)
    assert "100%" in capsys.readouterr().out


async def test_quickstart_takes_no_for_an_answer(https: HttpsFederation, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt":"say one","completion":"one"}\n')
    contribute = load("quickstart/quickstart.py").contribute
    assert await contribute(https.invite, rows, tmp_path / "home", lambda _: False) is None
    assert https.asked == ["GET /v1/federation", "GET /v1/tasks"]


async def test_custom_trainer(https: HttpsFederation, tmp_path: Path) -> None:
    contribute = load("custom_trainer/custom_trainer.py").contribute
    async with asyncio.timeout(30):
        adapters = await asyncio.gather(*(contribute(https.invite, tmp_path / str(number)) for number in range(3)))
    assert {adapter.name for adapter in adapters} == {"1"}


def parrot(question: str, adapter: Path | None) -> str:
    return f"{question} {adapter.name if adapter else 'base'}"


async def test_thumbs_up_chat_learns_from_liked_answers_only(https: HttpsFederation, tmp_path: Path) -> None:
    module = load("thumbs_up_chat/thumbs_up_chat.py")
    trainers = [FakeTrainer() for _ in range(3)]
    chats = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        chat = module.Chat(tmp_path / str(number) / "chat.db", parrot)
        for question in ("one", "two", "three"):
            chat.say(question)
            if question != "two":
                chat.thumbs_up()
        chats.append(chat)

    def learn(number: int) -> Path | None:
        # A program without a loop: each in a thread of its own, as three processes would be.
        result: Path | None = module.learn(
            chats[number], https.invite, chats[number].file.parent, lambda _: True, trainers[number]
        )
        return result

    async with asyncio.timeout(30):
        await asyncio.gather(*(asyncio.to_thread(learn, number) for number in range(3)))
    (request,) = trainers[0].requests
    assert [record.messages[0].content for record in request.records] == ["one", "three"]
    assert chats[0].say("four") == "four 1"
    assert (tmp_path / "0" / "fedit" / "membership.json").exists()


async def until(service: Any, reached: Callable[[dict[str, Any]], Any]) -> None:
    """Follow a service's events, none of them left out, to a state that must come."""
    state: dict[str, Any] = {"event": -1}
    while state["event"] < 0 or not reached(state):
        state = await (await service.get("/", params={"after": state["event"]})).json()


async def test_a_background_service_trains_while_it_serves(https: HttpsFederation, tmp_path: Path) -> None:
    module = load("background_service/background_service.py")
    parts = [
        module.Participation(https.invite, "test-task@1", tmp_path / str(number), FakeTrainer(), least_rows=2)
        for number in range(3)
    ]
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        services = [await stack.enter_async_context(TestClient(TestServer(module.build(part)))) for part in parts]
        assert (await (await services[0].get("/")).json())["text"] == "waiting for rows"
        assert (await (await services[0].post("/pause")).json()) == {"paused": True}
        for service in services:
            for number in range(2):
                answer = await service.post("/rows", json={"prompt": f"say {number}", "completion": str(number)})
                assert answer.status == 201
        await until(services[0], lambda state: state["kind"] == "paused")
        assert https.loopback.results == []
        await services[0].post("/resume")
        for service in services:
            await until(service, lambda state: state["adapter"])
    assert https.loopback.results[0].survivors == 3
    assert [len(part.trainer.requests[0].records) for part in parts] == [2, 2, 2]


async def test_a_background_service_without_a_fitting_yes_sends_nothing(https: HttpsFederation, tmp_path: Path) -> None:
    module = load("background_service/background_service.py")
    part = module.Participation(https.invite, "another-task@1", tmp_path, FakeTrainer(), least_rows=0)
    await part.take_part()
    assert "test-task@1" in part.last.text
    assert "POST /v1/enroll" not in https.asked
