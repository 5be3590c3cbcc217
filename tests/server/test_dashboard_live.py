"""Rounds that are watched: a stream of fragments, bounded in number, that ends with the session and with the server."""

import json
from pathlib import Path

import aiohttp

from fedit_protocol.testing import ManualClock
from fedit_server.access import sessions
from fedit_server.access.roles import Role
from fedit_server.admin.tasks import change_task
from fedit_server.app import drain
from fedit_server.dashboard.console import CONSOLE
from fedit_server.dashboard.live import MOST_STREAMS
from fedit_server.tasks.lifecycle import Verb

from .bases import small_task
from .conftest import start
from .devices import one_hot
from .histories import NOTES
from .looking import Operator, sign_in
from .test_sealed_rounds import BOTH, guests, trusted_task


async def test_a_stream_sends_the_page_again_when_it_has_changed_and_ends_with_the_server(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        viewer = await sign_in(running, Role.VIEWER)
        headers = {"Cookie": f"{sessions.COOKIE}={viewer.cookie}"}
        async with running.http.get("/tasks/notes/live", headers=headers) as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            assert "default-src 'self'" in stream.headers["Content-Security-Policy"]
            assert "Between rounds" in await event(stream, "now")
            await change_task(running.parts.admin, NOTES, Verb.PAUSE)
            assert "Between rounds" not in await event(stream, "now")
            await drain(running.app)
            assert await stream.content.read() == b""


async def event(stream: aiohttp.ClientResponse, name: str) -> str:
    """Return the data of the next event of this name."""
    lines: list[str] = []
    async for raw in stream.content:
        line = raw.decode().rstrip("\n")
        if not line and f"event: {name}" in lines:
            return "\n".join(one.removeprefix("data: ") for one in lines if one.startswith("data: "))
        lines = [] if not line else [*lines, line]
    raise AssertionError("the stream has ended")


async def test_so_many_streams_are_open_at_most(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        viewer = await sign_in(running, Role.VIEWER)
        streams = running.app[CONSOLE].streams
        streams.update(range(MOST_STREAMS))
        try:
            status, problem, headers = await viewer.get("/tasks/notes/live")
        finally:
            streams.difference_update(range(MOST_STREAMS))
        assert (status, json.loads(problem)["code"]) == (429, "T022")
        assert "Retry-After" in headers
        assert (await viewer.get("/tasks/none/live"))[0] == 404
        assert (await Operator(running, "", "").get("/tasks/notes/live"))[0] == 401


async def test_a_trusted_round_has_stages_of_its_own(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, trusted_task(base), modes=BOTH) as running:
        everybody, viewer = await guests(running, 3), await sign_in(running, Role.VIEWER)
        for guest in everybody[:2]:
            await guest.accept()
        joining = json.loads((await viewer.get("/tasks/notes/rounds/1.json"))[1])
        assert [(line["stage"], line["state"]) for line in joining["stages"]] == [
            ("accept", "now"), ("sealed_update", "ahead"), ("open", "ahead"),
        ]  # fmt: skip
        assert (joining["stages"][0]["came"], joining["stages"][0]["of"]) == (2, 3)
        assert joining["dropouts"] == {"join": 0, "keys": 0, "upload": 0}, "the third may yet come"
        await everybody[2].accept()
        size = (await running.parts.store.tasks.tasks())[0].document.layout.size
        for guest in everybody:
            await guest.upload(one_hot(size, 0))
        await everybody[0].result()
        done = json.loads((await viewer.get("/tasks/notes/rounds/1.json"))[1])
        page = (await viewer.get("/tasks/notes/privacy"))[1]
    assert {line["state"] for line in done["stages"]} == {"past"}
    assert (done["mode"], done["survivors"]) == ("trusted", 3)
    assert "This server sees every update" in page
