"""A fake of an OpenAI-compatible server, over real HTTP on loopback: it judges by a rule, and misbehaves as told."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web


@dataclass
class Misbehaviour:
    """What one request gets instead of a verdict: a status with headers, or a body that is no verdict."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    content_type: str = "application/json"
    text: str | None = None
    """The text of a reply that is well formed."""


@dataclass
class FakeJudge:
    """Answers what `rule` makes of a question; the n-th request meets `trouble[n]`, if there is one."""

    rule: Callable[[str], str]
    trouble: dict[int, Misbehaviour] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    refuses: Sequence[str] = ()
    """Options that this model does not take."""
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        number = len(self.requests)
        self.requests.append(asked)
        self.keys.append(request.headers.get("Authorization", ""))
        for option in self.refuses:
            if option in asked:
                error = {"error": {"message": f"unsupported parameter: {option}", "type": "invalid_request_error"}}
                return web.json_response(error, status=400)
        trouble = self.trouble.get(number, Misbehaviour())
        if trouble.status != 200:
            error = {"error": {"message": "not now", "type": "fake"}}
            return web.json_response(error, status=trouble.status, headers=trouble.headers)
        if trouble.body is not None:
            return web.Response(text=trouble.body, content_type=trouble.content_type)
        text = self.rule(asked["messages"][-1]["content"]) if trouble.text is None else trouble.text
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return web.json_response({"id": "x", "object": "chat.completion", "created": 0, "model": asked["model"],
                                  "choices": [choice], "usage": usage})  # fmt: skip

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Listen on a free port of this machine."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()


def longer(content: str) -> str:
    """Prefer the longer answer of our own pairwise prompt."""
    first, second = (content.split(f"=== Answer {n} ===\n")[1].split("\n\n===", maxsplit=1)[0] for n in (1, 2))
    return "Because of its length.\n[[A]]" if len(first) > len(second) else "So it is.\n[[B]]"


def first_one(content: str) -> str:
    """Prefer whatever stands first: a judge without sense."""
    return "[[A]]"


def scores(content: str) -> str:
    """Give the answer that holds `good` 9 and the other one 6."""
    first, second = (content.split(f"=== Answer {n} ===\n")[1].split("\n\n===", maxsplit=1)[0] for n in (1, 2))
    return f"{9 if 'good' in first else 6} {9 if 'good' in second else 6}\nwith reasons"
