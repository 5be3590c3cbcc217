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
from fedit_server.commands.remote import Remote, remote_operations
from fedit_server.running.serving import Serving, serving

from .bases import small_task
from .test_serving import plan

pytestmark = pytest.mark.sqlite

FILE = """id = "more"
title = "More"
[base]
model = "{base}"
[adapter]
rank = 2
target_modules = ["q_proj", "v_proj"]
[encoding]
value_range = 1.0
clip_norm = 100.0
[round]
cohort_min = 3
cohort_size = 3
rounds = {rounds}
[retention]
keep_last = 3
"""
HERE_ONLY = {
    "backup create x.backup": "a backup holds the keys",
    "task create {file} --base {base}": "folders of --base and --start are read",
    "task edit notes {file} --base {base}": "the folder of --base is read",
    "keys rotate": "needs the data folder",
    "replica list": "needs the data folder",
    "config show": "needs the data folder",
    "db check": "needs the data folder",
    "cert renew": "needs the data folder",
}


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
    assert shown["task"]["id"] == "notes"
    assert lines[-1].content.action == "invite.create"
    assert lines[-1].content.who.startswith("token ")


async def test_tasks_are_made_listed_edited_and_read_from_another_machine(elsewhere: Elsewhere, base: Path) -> None:
    pin = elsewhere.server.parts.identity.pin
    operator = ("--token-file", str(await elsewhere.token(Role.OPERATOR)))
    viewer = ("--token-file", str(await elsewhere.token(Role.VIEWER)))
    file = elsewhere.folder / "more.toml"
    file.write_text(FILE.format(base=base, rounds=4))
    forbidden = await elsewhere.command("task", "create", str(file), *viewer, pin=pin)
    made = await elsewhere.command("task", "create", str(file), "--draft", "--owner", "IT", *operator, pin=pin)
    listed = (await elsewhere.command("task", "list", *viewer, pin=pin))["tasks"]
    kept = await elsewhere.command("task", "retention", "more", *viewer, pin=pin)
    file.write_text(FILE.format(base=base, rounds=6).replace("keep_last = 3", "rounds_days = 30"))
    planned = await elsewhere.command("task", "edit", "more", str(file), "--dry-run", *operator, pin=pin)
    edited = await elsewhere.command("task", "edit", "more", str(file), *operator, pin=pin)
    changed = await elsewhere.command("task", "retention", "more", *viewer, pin=pin)
    ruled = await elsewhere.command("task", "retention", "more", "--keep-last", "2", *operator, pin=pin)
    record = (await elsewhere.command("task", "log", "more", *viewer, pin=pin))["changes"]
    gone = await elsewhere.command("adapter", "prune", *operator, pin=pin)
    actions = [line.content.action for line in await elsewhere.server.parts.store.audit.lines(0, 20)]
    assert (forbidden["code"], made) == (
        "FEDIT-T111", {"task": "more", "version": 1, "state": "draft", "owner": "IT"},
    )  # fmt: skip
    assert [(one["id"], one["state"], one["owner"], one["rounds"]) for one in listed] == [
        ("more", "draft", "IT", 4), ("notes", "active", "", 2),
    ]  # fmt: skip
    assert kept == {"task": "more", "keep_last": 3, "keep_every": 0, "rounds_days": None}
    assert (planned["published"], [one["name"] for one in planned["changes"]]) == (False, ["round.rounds"])
    assert (edited["published"], edited["draft"], edited["changes"]) == (True, True, planned["changes"])
    assert changed == {"task": "more", "keep_last": None, "keep_every": 0, "rounds_days": 30}
    assert ruled == {"task": "more", "keep_last": 2, "keep_every": 0, "rounds_days": None}
    assert [(one["kind"], one["by"].partition(" ")[0]) for one in record] == [("created", "token"), ("edited", "token")]
    assert (gone["removed"], gone["versions"], gone["rounds"]) == (True, [], 0)
    assert [action for action in actions if not action.startswith("token.")] == [
        "task.create", "task.create", "task.retention", "task.edit", "task.retention", "task.retention",
        "adapter.prune",
    ]  # fmt: skip


async def test_what_can_only_be_done_beside_the_store_says_so_and_does_nothing(
    elsewhere: Elsewhere, base: Path
) -> None:
    pin = elsewhere.server.parts.identity.pin
    token = ("--token-file", str(await elsewhere.token(Role.ADMIN)))
    file = elsewhere.folder / "more.toml"
    file.write_text(FILE.format(base=base, rounds=4))
    for words, why in HERE_ONLY.items():
        refused = await elsewhere.command(*words.format(file=file, base=base).split(), *token, pin=pin)
        assert (refused["code"], refused["exit"]) == ("FEDIT-U118", 2), words
        assert why in refused["message"], words
        assert refused["fix"].startswith(f"there: fedit-server {words.split()[0]}")
    assert not (elsewhere.folder / "not-here").exists()


async def test_a_round_is_watched_from_another_machine(elsewhere: Elsewhere) -> None:
    pin = elsewhere.server.parts.identity.pin
    token = ("--token-file", str(await elsewhere.token(Role.VIEWER)))
    missing = await elsewhere.command("round", "watch", "7", *token, pin=pin)
    assert (missing["code"], missing["exit"]) == ("FEDIT-U025", 2)
    remote = Remote.of(elsewhere.server.url, pin, Path(token[1]))
    async with remote_operations(remote) as operations:
        shown = await operations.ask("GET", "/tasks/notes/rounds", query={"limit": 1})
        assert shown == {"rounds": [], "next": None}, "a watcher without a number waits for the first round"


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
