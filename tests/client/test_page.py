"""The local page as a browser or an attacker meets it: who is let in, what is shown, what may be changed, the chat."""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fedit_client.config import ClientConfig, load_config
from fedit_client.data import Message
from fedit_client.data.records import Role
from fedit_client.events import Event, EventKind
from fedit_client.home.lock import held_alone
from fedit_client.manners.control import NowFile, read_wish
from fedit_client.page.conversation import Conversation, Voice
from fedit_client.page.door import KEY_HEADER
from fedit_client.page.serving import serve, serving
from fedit_protocol.errors import ConfigError, DeviceError


@dataclass
class FakeModel:
    """Answers with what it was asked; can be made to wait, or to fail."""

    loaded: int = 0
    ended: int = 0
    asked: list[list[str]] = field(default_factory=list)
    wait_for: asyncio.Event | None = None
    fail: bool = False
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def open(self, adapter: Path) -> AsyncIterator[Voice]:
        self.loaded += 1
        yield self
        self.ended += 1
        self.has_ended.set()

    async def ask(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        self.asked.append([message.content for message in messages])
        self.was_asked.set()
        if self.fail:
            raise DeviceError("the training process ended unexpectedly", code="H004")
        yield "you said "
        if self.wait_for is not None:
            await self.wait_for.wait()
        yield messages[-1].content


@dataclass
class Visit:
    """A browser that has come in."""

    http: aiohttp.ClientSession
    base: str
    opener: str
    model: FakeModel
    config: ClientConfig
    key: str
    """What the page keeps for its tab."""

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.http.get(self.base + path, headers={KEY_HEADER: self.key} | headers) as answer:
            return answer.status, await answer.text()

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.get("/state.json"))[1])
        return found

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Send what the page sends; headers given here come instead of the page's own."""
        own = {"Origin": self.base, KEY_HEADER: self.key}
        async with self.http.post(self.base + path, data=json.dumps(body or {}), headers=own | headers) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    config, model = load_config(tmp_path), FakeModel()
    conversation = Conversation(lambda: tmp_path / "1", model.open)
    jar = aiohttp.CookieJar(unsafe=True)  # which keeps cookies of addresses, as browsers do
    async with serving(config, 0, conversation) as address, aiohttp.ClientSession(cookie_jar=jar) as http:
        yield await arrived(http, address, model, config)


async def arrived(http: aiohttp.ClientSession, address: str, model: FakeModel, config: ClientConfig) -> Visit:
    """Open the address, and take the key from the page as its script does."""
    async with http.get(address) as answer:
        assert answer.status == 200
        found = re.search(r'<meta name="fedit-key" content="([\w-]{40,})">', await answer.text())
    assert found is not None
    return Visit(http, address.partition("/open")[0], address, model, config, found[1])


async def test_the_address_opens_once(visit: Visit) -> None:
    assert (await visit.get("/"))[0] == 200
    async with aiohttp.ClientSession() as other:
        for path in ["/state.json", visit.opener.removeprefix(visit.base), "/open?token=", "/open"]:
            async with other.get(visit.base + path) as answer:
                assert answer.status == 403, path
                assert visit.key not in await answer.text()
        for path in ["/", "/page.js", "/page.css"]:
            async with other.get(visit.base + path) as answer:
                assert visit.key not in await answer.text(), "the shell is empty"


async def test_what_a_browser_tells_other_servers_of_this_machine_opens_nothing(visit: Visit) -> None:
    """Browsers send a cookie of 127.0.0.1 to every port of it, so none may be set, and none counts."""
    assert visit.opener.startswith("http://127.0.0.1:")
    assert len(visit.http.cookie_jar) == 0
    heard = {"Cookie": f"fedit_page={visit.key}", "Origin": visit.base}
    async with visit.http.get(visit.base + "/state.json", headers=heard) as answer:
        assert answer.status == 403
    for path in ("/pause", "/resume", "/finish", "/chat"):
        async with visit.http.post(visit.base + path, data="{}", headers=heard) as answer:
            assert answer.status == 403, path


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/state.json", "/absent"])
async def test_every_answer_forbids_what_comes_from_elsewhere(visit: Visit, path: str) -> None:
    async with visit.http.get(visit.base + path, headers={KEY_HEADER: visit.key}) as answer:
        assert answer.status == (404 if path == "/absent" else 200)
        policy = answer.headers["Content-Security-Policy"]
        text = await answer.text()
    assert policy.startswith("default-src 'self'")
    assert "unsafe" not in policy
    assert "https://" not in text, "nothing is fetched from elsewhere"
    assert "<script>" not in text
    assert " style=" not in text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:80", "fedit.local:7717"])
async def test_a_name_that_leads_here_is_not_this_page(visit: Visit, host: str) -> None:
    assert (await visit.get("/state.json", Host=host))[0] == 403


@pytest.mark.parametrize("path", ["/pause", "/resume", "/finish", "/chat"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {KEY_HEADER: ""},
        {KEY_HEADER: "x"},
    ],
)
async def test_another_site_changes_nothing(visit: Visit, path: str, headers: dict[str, str]) -> None:
    assert (await visit.post(path, **headers))[0] == 403
    assert not read_wish(visit.config.paths).paused
    assert visit.model.asked == []


async def test_reading_changes_nothing(visit: Visit) -> None:
    for path in ("/pause", "/resume", "/finish", "/chat"):
        assert (await visit.get(path))[0] == 405


async def test_pause_and_resume_are_the_owners_wish(visit: Visit) -> None:
    assert (await visit.post("/pause"))[0] == 200
    assert read_wish(visit.config.paths).paused
    assert (await visit.state())["now"]["paused"] is True
    assert (await visit.post("/resume"))[0] == 200
    assert not read_wish(visit.config.paths).paused
    assert (await visit.post("/pause", {"minutes": 60}))[0] == 200
    assert read_wish(visit.config.paths).until is not None
    assert (await visit.post("/pause", {"minutes": -1}))[0] == 400


async def test_a_running_client_is_shown_and_can_be_asked_to_finish(visit: Visit) -> None:
    status, said = await visit.post("/finish")
    assert (status, json.loads(said)["code"]) == (409, "FEDIT-J006")
    paths = visit.config.paths
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), 1000.0) as now:
        now.tell(Event(EventKind.WAITING, "2 more devices are needed"), 1002.0)
        state = (await visit.state())["now"]
        assert (state["running"], state["activity"]) == (True, "waiting")
        assert "2 more devices are needed" in state["lines"][0]
        assert (await visit.post("/finish"))[0] == 200
        assert read_wish(paths).finish == now.now.run


async def test_what_is_damaged_is_told_and_the_rest_is_shown(visit: Visit) -> None:
    visit.config.paths.control_file.write_text("{")
    state = await visit.state()
    assert [problem["code"] for problem in state["problems"]].count("FEDIT-S013") >= 1
    assert state["rounds"] == []
    assert state["outbox"] == []


async def chatted(visit: Visit, *contents: str) -> list[dict[str, Any]]:
    roles = ["user", "assistant"]
    turns = [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    status, text = await visit.post("/chat", {"messages": turns})
    assert status == 200
    return [json.loads(line) for line in text.splitlines()]


async def test_the_chat_streams_from_one_model_that_stays_loaded(visit: Visit) -> None:
    assert await chatted(visit, "hello") == [{"piece": "you said "}, {"piece": "hello"}, {"done": True}]
    await chatted(visit, "hello", "you said hello", "again")
    assert visit.model.asked[-1] == ["hello", "you said hello", "again"]
    assert visit.model.loaded == 1


async def test_one_question_at_a_time(visit: Visit) -> None:
    visit.model.wait_for = asyncio.Event()
    first = asyncio.create_task(chatted(visit, "slow"))
    await visit.model.was_asked.wait()
    assert (await chatted(visit, "quick"))[-1]["error"]["code"] == "FEDIT-H011"
    visit.model.wait_for.set()
    assert (await first)[-1] == {"done": True}


async def test_a_model_that_dies_is_told_and_loaded_again(visit: Visit) -> None:
    visit.model.fail = True
    assert (await chatted(visit, "hello"))[-1]["error"]["code"] == "FEDIT-H004"
    visit.model.fail = False
    assert (await chatted(visit, "hello"))[-1] == {"done": True}
    assert (visit.model.loaded, visit.model.ended) == (2, 1)


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"messages": [{"role": "user", "content": ""}]}, [1]])
async def test_what_the_page_would_not_send_is_refused(visit: Visit, body: Any) -> None:
    assert (await visit.post("/chat", body))[0] == 400


async def test_an_idle_model_leaves_the_memory(tmp_path: Path) -> None:
    model = FakeModel()
    async with Conversation(lambda: tmp_path, model.open, unload_after_s=0.0) as talk:
        pieces = [piece async for piece in talk.ask([Message(Role.USER, "x")])]
        assert pieces == ["you said ", "x"]
        await model.has_ended.wait()
    assert (model.loaded, model.ended) == (1, 1)


async def test_without_an_adapter_the_chat_says_what_to_do(tmp_path: Path) -> None:
    async with serving(load_config(tmp_path), 0) as address, aiohttp.ClientSession() as http:
        there = await arrived(http, address, FakeModel(), load_config(tmp_path))
        assert (await chatted(there, "hello"))[-1]["error"]["code"] == "FEDIT-J001"


async def test_a_port_that_is_taken_is_an_error_only_if_it_was_asked_for(tmp_path: Path) -> None:
    config = load_config(tmp_path)
    async with serving(config, 0) as address:
        port = int(address.split(":")[2].partition("/")[0])
        with pytest.raises(ConfigError) as told:
            async with serving(config, port):
                pass
        assert told.value.code == "U013"


async def test_the_address_is_said_and_stopping_leaves_nothing(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    running = asyncio.create_task(serve(load_config(tmp_path), None, said.put_nowait, browser=False))
    assert (await said.get()).startswith("http://127.0.0.1:")
    running.cancel()
    await asyncio.wait({running})
    assert not list(tmp_path.glob("open-page.html"))
