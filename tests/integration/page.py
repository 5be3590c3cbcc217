"""The local page of one home, visited as a browser does: opened once, looked at, asked, and stopped with Ctrl-C."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from typing import Any

import aiohttp

from .programs import environment


def visit(home: str, question: str) -> tuple[dict[str, Any], str, int]:
    """Return the page's state, the chat's answer, and the exit status of the command behind it."""
    with subprocess.Popen(
        [sys.executable, "-m", "fedit_client", "--home", home, "--json", "ui", "--no-browser"],
        env=environment(), stdout=subprocess.PIPE, text=True,
    ) as page:  # fmt: skip
        try:
            assert page.stdout is not None
            address = json.loads(page.stdout.readline())["text"]
            state, answer = asyncio.run(_asked(address, question))
            page.send_signal(signal.SIGINT)
            return state, answer, page.wait(20)
        finally:
            page.kill()


async def _asked(address: str, question: str) -> tuple[dict[str, Any], str]:
    base = address.partition("/open")[0]
    body = json.dumps({"messages": [{"role": "user", "content": question}]})
    async with aiohttp.ClientSession() as http:
        async with http.get(address) as opened:
            assert opened.status == 200
            key = re.findall(r'name="fedit-key" content="([^"]+)"', await opened.text())[0]
        own = {"Origin": base, "X-Fedit-Key": key}
        async with http.get(f"{base}/state.json", headers=own) as answer:
            state = await answer.json()
        async with http.post(f"{base}/chat", data=body, headers=own) as answer:
            lines = [json.loads(line) async for line in answer.content]
    assert lines[-1] == {"done": True}, lines
    return state, "".join(line.get("piece", "") for line in lines)
