"""Requests that schemathesis makes from the served OpenAPI document, over HTTPS: none is answered other than told."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest

from fedit_server.access.roles import Role
from fedit_server.admin import tokens, webhooks
from fedit_server.admin.models.tokens import NewToken
from fedit_server.admin.models.webhooks import NewWebhook
from fedit_server.config import ServerConfig
from fedit_server.running.serving import Plan, serving

from .bases import small_task

HERE = Path(__file__).parent
NO_HTTP = "Error handling request"
"""How aiohttp reports what is no HTTP at all; schemathesis tries that, and is answered 400."""


async def test_no_request_is_answered_other_than_the_document_says(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await ask_everything(tmp_path, base, "--phases", "coverage")
    assert unhandled(caplog) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_nor_are_many_more_that_follow_each_other(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await ask_everything(tmp_path, base, "--max-examples", "60")
    assert unhandled(caplog) == []


def unhandled(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What went wrong inside while every answer looked well."""
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    return [one for one in said if not one.startswith(NO_HTTP)]


async def ask_everything(folder: Path, base: Path, *options: str) -> None:
    """Serve a task to schemathesis; a finding fails, with the request that shows it."""
    config = ServerConfig(home=folder / "home", listen="127.0.0.1:0", trusted_proxies=("127.0.0.0/8",), most_webhooks=1)
    async with serving(Plan(config, [small_task(base)])) as server:
        authority = folder / "authority.pem"
        authority.write_text(server.parts.identity.descriptor.tls_ca)
        # With the only webhook taken, what the requests register cannot make the server call somebody.
        await webhooks.create_webhook(server.parts.admin, NewWebhook(url="https://127.0.0.1:9/"))
        made = await tokens.create_token(server.parts.admin, NewToken(role=Role.ADMIN))
        schemathesis = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
            *("run", f"{server.url}/openapi.json", "--tls-verify", str(authority)),
            *("-H", f"Authorization: Bearer {made.secret}", "--seed", "20", "--no-color"),
            *("--no-shrink", "--request-timeout", "10", "--warnings", "off", *options),
            env={**os.environ, "SCHEMATHESIS_HOOKS": "asking", "PYTHONPATH": str(HERE)},
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await schemathesis.communicate()
        assert schemathesis.returncode == 0, said.decode()
