"""A web service that takes part in a federation in the background: it serves, and trains when the federation calls.

    python examples/background_service/background_service.py "fedit://host:8443/j/CODE#sha256:PIN" --accept TASK@N

    GET  /        what the client does right now, in words and as data; with ?after=N it waits for event N + 1
    POST /rows    {"prompt": …, "completion": …}: one more row, in memory only
    POST /pause   stop within seconds, after a checkpoint;  POST /resume   go on

FedIT owns nothing of the process: no prints, no signal or log handlers, no changes of the environment. The client lives
in aiohttp's `cleanup_ctx`, so that stopping the service leaves a round cleanly. Keep such a service on loopback.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from fedit_client import Client, Event, EventKind, FeditError, Trainer


@dataclass
class Participation:
    """The background client of this service: its rows, the newest event, and the adapters that came of it."""

    invite: str
    accept: str
    data_dir: Path
    trainer: Trainer | None = None
    least_rows: int = 10
    held: list[Mapping[str, str]] = field(default_factory=list[Mapping[str, str]])
    last: Event = field(default_factory=lambda: Event(EventKind.WAITING, "waiting for rows"))
    events: int = 0
    finished: bool = False
    adapter: Path | None = None
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def rows(self) -> list[Mapping[str, str]]:
        """The seam to FedIT (DataSource): read when a round's training starts, so that new rows count from then on."""
        return list(self.held)

    def client(self) -> Client:
        """Return a client for the service's own home; it may exist beside one that runs."""
        return Client.open(self.invite, app="background-service", data_dir=self.data_dir, trainer=self.trainer)

    async def take_part(self) -> None:
        """Join once the operator's yes fits the task, then do round after round; an error is shown and ends it."""
        while len(self.held) < self.least_rows:
            self.more.clear()
            await self.more.wait()
        try:
            async with self.client() as client:
                client.add_source(self)
                if client.membership is None:
                    offer = await client.fetch_offer()
                    if offer.summary.label != self.accept:
                        return await self.tell(f"the task is {offer.summary.label}: --accept it, or not")
                    await client.join(consent=offer.accept())
                while not self.finished:
                    async for event in client.run(max_rounds=1):
                        await self.hear(event)
                    self.adapter = client.latest_adapter()
                    await self.tell(f"the newest adapter lies in {self.adapter}")
        except FeditError as error:
            await self.tell(f"FEDIT-{error.code}: {error}")

    async def tell(self, text: str) -> None:
        """Show a word of the service's own."""
        await self.hear(Event(EventKind.NOTICE, text))

    async def hear(self, event: Event) -> None:
        """Show an event, and wake who waits for one."""
        self.last, self.events = event, self.events + 1
        self.finished = self.finished or event.kind is EventKind.TASK_FINISHED
        async with self.news:
            self.news.notify_all()


PARTICIPATION = web.AppKey("participation", Participation)
routes = web.RouteTableDef()


@routes.get("/")
async def state(request: web.Request) -> web.Response:
    """Say what goes on."""
    part, after = request.app[PARTICIPATION], int(request.query.get("after", -1))
    async with part.news:
        await part.news.wait_for(lambda: part.events > after)
    adapter = str(part.adapter) if part.adapter else None
    shown = {"event": part.events, "kind": part.last.kind, "text": part.last.text}
    return web.json_response({**shown, "rows": len(part.held), "adapter": adapter})


@routes.post("/rows")
async def add_row(request: web.Request) -> web.Response:
    """Keep one more row."""
    part, row = request.app[PARTICIPATION], await request.json()
    part.held.append({"prompt": str(row["prompt"]), "completion": str(row["completion"])})
    part.more.set()
    return web.json_response({"rows": len(part.held)}, status=201)


@routes.post("/pause")
async def pause(request: web.Request) -> web.Response:
    """Stop training until /resume."""
    request.app[PARTICIPATION].client().pause()
    return web.json_response({"paused": True})


@routes.post("/resume")
async def resume(request: web.Request) -> web.Response:
    """Train again."""
    request.app[PARTICIPATION].client().resume()
    return web.json_response({"paused": False})


async def in_background(app: web.Application) -> AsyncIterator[None]:
    """Start the client with the service, and end it with the service."""
    task = asyncio.create_task(app[PARTICIPATION].take_part())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def build(part: Participation) -> web.Application:
    """Return the service."""
    app = web.Application()
    app[PARTICIPATION] = part
    app.add_routes(routes)
    app.cleanup_ctx.append(in_background)
    return app


if __name__ == "__main__":
    link, _, label = sys.argv[1:4]
    web.run_app(build(Participation(link, label, Path("fedit-background-service"))), host="127.0.0.1", port=8080)
