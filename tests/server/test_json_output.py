"""`--json`, closed stdin and exit statuses, over every command: one object, no question, a known status."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from fedit_protocol.testing import ManualClock
from fedit_server.cli import app, run
from fedit_server.commands.arguments import lift_global_options
from fedit_server.commands.json_output import Envelope, schemas
from fedit_server.console import SCHEMA
from fedit_server.help_pages import exit_code_lines

from .bases import small_task
from .conftest import start

pytestmark = pytest.mark.sqlite

SNAPSHOTS = Path(__file__).parent / "snapshots"
KEEP = os.environ.get("FEDIT_TEST_SNAPSHOTS") == "1"
UNKNOWN = ("--no-such-option",)
# Commands that end soon on a folder that was set up and on which no server runs: run as they are, their fields kept.
HARMLESS: dict[str, tuple[str, ...]] = {
    "adapter list": (),
    "audit tail": (),
    "audit verify": (),
    "authority log": (),
    "bugreport": ("--out", "report.zip"),
    "cert renew": (),
    "cert rotate-ca": (),
    "cert show": (),
    "clients list": (),
    "completion": ("bash",),
    "config schema": (),
    "config show": (),
    "containerfile": (),
    "db check": (),
    "db upgrade": (),
    "doctor": (),
    "eval list": (),
    "evaluator list": (),
    "grafana": (),
    "help": ("C017",),
    "invite create": (),
    "invite list": (),
    "openapi": (),
    "paths": (),
    "round list": (),
    "round status": (),
    "replica list": (),
    "rounds": (),
    "status": (),
    "systemd": (),
    "task list": (),
    "task log": (),
    "task new": (),
    "task open": (),
    "task pause": (),
    "task resume": (),
    "task retention": (),
    "task schema": (),
    "task show": (),
    "token create": ("--role", "viewer"),
    "token list": (),
    "webhook create": ("https://hooks.example.org/fedit",),
    "webhook list": (),
    "version": (),
}
# What is refused on such a folder, with its status. Every other command is tried with an option that it does not have.
REFUSED: dict[str, tuple[tuple[str, ...], int]] = {
    "adapter export": (("--out", ".", "--adapter-version", "7"), 2),
    "adapter rollback": (("7",), 2),
    "adapter verify": (("absent",), 3),
    "clients approve": (("AAAA-AAAA",), 2),
    "clients block": (("0123",), 2),
    "clients forget": (("0123",), 2),
    "clients refuse": (("AAAA-AAAA",), 2),
    "clients revoke": (("0123",), 2),
    "clients unblock": (("0123",), 2),
    "config edit": ((), 2),
    "health": ((), 5),
    "metrics": ((), 5),
    "round abort": (("7",), 2),
    "round close": (("7",), 2),
    "round show": (("7",), 2),
    "round watch": (("7",), 2),
    "task archive": ((), 2),
    "task create": (("none.toml",), 3),
    "task edit": (("none",), 2),
    "token revoke": (("none",), 2),
    "webhook ping": (("00000000",), 2),
    "webhook remove": (("00000000",), 2),
}
SHORT_FOR = {"rounds": "round list"}
NO_RECORD = {"config schema", "grafana", "openapi", "task schema", "task show"}
"""Commands whose data is a document of another format."""


def commands(command: Any = None, name: str = "") -> Iterator[str]:
    """Every command that does something, two words for one in a group."""
    command = command or get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
    for word, below in (inner or {}).items():
        yield from commands(below, f"{name} {word}".strip())


@pytest.fixture
async def home(tmp_path: Path, base: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that was set up with one task; the current folder is another one, no settings come from outside."""
    for name in [name for name in os.environ if name.startswith("FEDIT_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    async with start(folder, clock, small_task(base)) as running:
        running.parts.identity.tls.renew_leaf(["localhost"], clock())
    (folder / "server.toml").write_text('listen = "127.0.0.1:0"\n')
    monkeypatch.setenv("FEDIT_HOME", str(folder))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def invoke(*words: str) -> int:
    return run(lift_global_options(words))


def read(stdout: str) -> dict[str, Any]:
    """The one object that a command ends with."""
    (line,) = stdout.splitlines()
    Envelope.model_validate_json(line)
    return dict(json.loads(line))


def fields(value: Any, name: str = "") -> set[str]:
    """The names of all fields below a value, dotted; a list's items as `[]`."""
    if isinstance(value, dict):
        return {name} | {found for key, inner in value.items() for found in fields(inner, f"{name}.{key}")}
    if isinstance(value, list):
        return {name} | {found for inner in value for found in fields(inner, f"{name}[]")}
    return {name}


def test_every_command_answers_with_one_object_whose_fields_stay(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field that scripts may read stays. New ones: run with FEDIT_TEST_SNAPSHOTS=1 to keep them."""
    found: dict[str, list[str]] = {}
    for command in commands():
        refused, status = REFUSED.get(command, (UNKNOWN, 2))
        arguments = HARMLESS.get(command, refused)
        ended = invoke(*command.split(), *arguments, "--json")
        said = capsys.readouterr()
        answer = read(said.out)
        expected = (SHORT_FOR.get(command, command), 0 if command in HARMLESS else status)
        assert ((answer["command"], ended), answer["ok"]) == (expected, ended == 0), said.err
        assert (answer["error"] or {"exit": 0})["exit"] == ended
        assert "Traceback" not in said.err
        if command in HARMLESS and command not in NO_RECORD:
            found[command] = sorted(fields(answer["data"]) - {""})
    file = SNAPSHOTS / "json_fields.json"
    if KEEP:
        file.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
    for command, names in json.loads(file.read_text()).items():
        assert set(names) - set(found[command]) == set(), command


def test_every_tried_command_exists() -> None:
    assert HARMLESS.keys() | REFUSED.keys() <= set(commands())


def test_the_published_schema_is_this(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = SNAPSHOTS / "fedit-1.schema.json"
    if KEEP:
        file.write_text(json.dumps(schemas()[SCHEMA], indent=1) + "\n")
    assert json.loads(file.read_text()) == schemas()[SCHEMA]
    assert invoke("help", "json") == 0
    assert json.loads(capsys.readouterr().out) == schemas()


def test_exit_statuses_mean_what_they_meant() -> None:
    file = SNAPSHOTS / "exit_codes.txt"
    if KEEP:
        file.write_text("\n".join(exit_code_lines()) + "\n")
    assert "\n".join(exit_code_lines()) + "\n" == file.read_text("utf-8")
