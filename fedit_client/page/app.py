"""The page's routes: the shell and its two files, the state as JSON, the owner's wishes, the chat as a stream."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit_client.config import ClientConfig
from fedit_client.data import Message
from fedit_client.data.records import Role
from fedit_client.manners.control import ask_finish, ask_pause, ask_resume
from fedit_client.page.conversation import Conversation
from fedit_client.page.door import HEADERS, Door
from fedit_client.page.state import page_state
from fedit_protocol.errors import FeditError

_STATIC: Final = {"page.css": "text/css", "page.js": "text/javascript", "page.html": "text/html"}
_MOST_BYTES: Final = 256 * 1024


class Turn(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str = Field(min_length=1, max_length=50_000)


class Question(BaseModel):
    """What the page's chat sends: the conversation so far, the new question last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Turn, ...] = Field(min_length=1, max_length=200)


class PauseWish(BaseModel):
    """How long to pause; None: until resume."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: int | None = Field(None, ge=1, le=60 * 24 * 30)


class Page:
    """The handlers of one home's page."""

    def __init__(
        self, config: ClientConfig, door: Door, conversation: Conversation, now: Callable[[], datetime]
    ) -> None:
        self._config, self._door, self._conversation, self._now = config, door, conversation, now

    def application(self) -> web.Application:
        """Return the routes, guarded."""
        app = web.Application(middlewares=[self._door.middleware], client_max_size=_MOST_BYTES)
        app.router.add_get("/open", self._door.open)
        app.router.add_get("/", self._static)
        app.router.add_get("/{name:page[.](?:css|js)}", self._static)
        app.router.add_get("/state.json", self._state)
        app.router.add_post("/pause", self._pause)
        app.router.add_post("/resume", self._resume)
        app.router.add_post("/finish", self._finish)
        app.router.add_post("/chat", self._chat)
        return app

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "page.html")
        text = files("fedit_client.page").joinpath("static", name).read_text("utf-8")
        return web.Response(text=text, content_type=_STATIC[name])

    async def _state(self, _: web.Request) -> web.Response:
        state = await asyncio.to_thread(page_state, self._config, self._now())
        return web.json_response(state)

    async def _pause(self, request: web.Request) -> web.Response:
        now = self._now().timestamp()
        try:
            wish = PauseWish.model_validate_json(await request.read())
        except ValidationError:
            return _bad_request()
        return self._change(
            lambda: ask_pause(self._config.paths, now, now + wish.minutes * 60 if wish.minutes else None)
        )

    async def _resume(self, _: web.Request) -> web.Response:
        return self._change(lambda: ask_resume(self._config.paths, self._now().timestamp()))

    async def _finish(self, _: web.Request) -> web.Response:
        return self._change(lambda: ask_finish(self._config.paths, self._now().timestamp()))

    def _change(self, do: Callable[[], object]) -> web.Response:
        try:
            do()
        except FeditError as error:
            return web.json_response(_told(error), status=409)
        return web.json_response({"done": True})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        """Answer as NDJSON: pieces as they come, then `done` or `error`."""
        try:
            question = Question.model_validate_json(await request.read())
        except ValidationError:
            return _bad_request()
        messages = [Message(turn.role, turn.content) for turn in question.messages]
        answer = web.StreamResponse(headers=HEADERS | {"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        try:
            async with aclosing(self._conversation.ask(messages)) as pieces:
                async for piece in pieces:
                    await answer.write(_line({"piece": piece}))
            await answer.write(_line({"done": True}))
        except FeditError as error:
            await answer.write(_line({"error": _told(error)}))
        await answer.write_eof()
        return answer


def _told(error: FeditError) -> dict[str, Any]:
    return {"code": f"FEDIT-{error.code}", "message": str(error), "fix": error.fix}


def _bad_request() -> web.Response:
    return web.json_response({"message": "this is not what the page sends"}, status=400)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
