"""The same commands for a server elsewhere: known by its pin, asked with a token, and refused in its own words."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fedit_server.access.roles import Role
from fedit_server.admin import tokens
from fedit_server.admin.models.tokens import NewToken
from fedit_server.cli import run
from fedit_server.commands.arguments import lift_global_options
from fedit_server.running.serving import Serving, serving

from .bases import small_task
from .test_serving import plan

pytestmark = pytest.mark.sqlite


@dataclass
class Elsewhere:
    """A server, and somebody on another machine with a token file."""

    server: Serving
    folder: Path
    capsys: pytest.CaptureFixture[str]

    async def token(self, role: Role) -> Path:
        """Return a file with a new token."""
        made = await tokens.create_token(self.server.parts.admin, NewToken(role=role))
        path = self.folder / f"{role}.token"
        path.write_text(made.secret + "\n")
        return path

    async def command(self, *words: str, pin: str | None = None) -> dict[str, Any]:
        """Run a command against the server; returns its data, or its error."""
        trusted = ["--pin", pin] if pin else []
        given = [*words, "--server", self.server.url, *trusted, "--json"]
        await asyncio.to_thread(run, lift_global_options(given))
        said: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return dict(said["error"] or said["data"])


@pytest_asyncio.fixture
async def elsewhere(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Elsewhere]:
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "not-here"))
    monkeypatch.delenv("FEDIT_TOKEN", raising=False)
    async with serving(plan(tmp_path / "home", small_task(base))) as server:
        yield Elsewhere(server, tmp_path, capsys)


async def test_commands_work_over_https_with_the_rights_of_their_token(elsewhere: Elsewhere) -> None:
    pin = elsewhere.server.parts.identity.pin
    operator = ("--token-file", str(await elsewhere.token(Role.OPERATOR)))
    viewer = ("--token-file", str(await elsewhere.token(Role.VIEWER)))
    status = await elsewhere.command("status", *viewer, pin=pin)
    invite = await elsewhere.command("invite", "create", "--uses", "3", *operator, pin=pin)
    export = await elsewhere.command("adapter", "export", "--out", str(elsewhere.folder / "v0"), *viewer, pin=pin)
    refused = await elsewhere.command("invite", "create", *viewer, pin=pin)
    missing = await elsewhere.command("round", "show", "7", *viewer, pin=pin)
    shown = await elsewhere.command("task", "show", *viewer, pin=pin)
    here_only = await elsewhere.command("task", "list", *viewer, pin=pin)
    lines = await elsewhere.server.parts.store.audit.lines(0, 10)
    assert (status["server"]["url"], status["federation"]["pin"]) == (elsewhere.server.url, pin)
    assert invite["uses"] == 3
    assert export["version"] == 0
    assert {path.name for path in (elsewhere.folder / "v0").iterdir()} >= {"adapter_config.json"}
    assert (refused["code"], refused["exit"], "needs admin or operator" in refused["message"]) == (
        "FEDIT-T111",
        6,
        True,
    )
    assert (missing["code"], missing["exit"]) == ("FEDIT-U025", 2)
    assert (shown["task"]["id"], here_only["code"]) == ("notes", "FEDIT-U118")
    assert lines[-1].content.action == "invite.create"
    assert lines[-1].content.who.startswith("token ")


async def test_nothing_is_sent_to_a_server_that_nobody_vouches_for(elsewhere: Elsewhere) -> None:
    token = ("--token-file", str(await elsewhere.token(Role.ADMIN)))
    pin = elsewhere.server.parts.identity.pin
    without = await elsewhere.command("status", *token)
    another = await elsewhere.command("status", *token, pin="sha256:" + "0" * 64)
    no_token = await elsewhere.command("status", pin=pin)
    listed = await tokens.list_tokens(elsewhere.server.parts.admin)
    assert (without["code"], pin in without["fix"], without["exit"]) == ("FEDIT-T116", True, 6)
    assert (another["code"], another["exit"]) == ("FEDIT-T115", 6)
    assert (no_token["code"], no_token["exit"]) == ("FEDIT-C110", 3)
    assert [one.last_used for one in listed.tokens] == [None], "the token has reached nobody"


@pytest.mark.parametrize(
    ("given", "lifted"),
    [
        ("status --server https://a --pin p", "--server https://a --pin p status"),
        ("--home h authority run --server https://a", "--home h authority run --server https://a"),
        ("metrics --token-file f", "metrics --token-file f"),
    ],
)
def test_options_about_a_server_elsewhere_may_stand_anywhere(given: str, lifted: str) -> None:
    assert lift_global_options(given.split()) == lifted.split()
