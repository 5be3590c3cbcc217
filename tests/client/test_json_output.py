"""`--json`, closed stdin and exit statuses, over every command: one object, no question, a known status."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from fedit_client.cli import app, invoke
from fedit_client.commands.json_output import Envelope, EventLine, schemas
from fedit_client.console import EVENT_SCHEMA, SCHEMA
from fedit_client.help_pages import exit_code_lines

SNAPSHOTS = Path(__file__).parent / "snapshots"
KEEP = os.environ.get("FEDIT_TEST_SNAPSHOTS") == "1"
UNKNOWN = ("--no-such-option",)
# Commands that need nothing and change nothing but this fresh home: run as they are, and their fields are kept.
HARMLESS: dict[str, tuple[str, ...]] = {
    "bugreport": (),
    "completion": ("bash",),
    "config reset": ("device.threads",),
    "config schema": (),
    "config show": (),
    "data add": ("rows.jsonl",),
    "data check": ("rows.jsonl",),
    "data convert": ("rows.jsonl", "--out", "messages.jsonl"),
    "data list": (),
    "doctor": (),
    "get": ("device.threads",),
    "help": ("D014",),
    "history": (),
    "outbox list": (),
    "partition": ("rows.jsonl", "--clients=1", "--by=iid", "--test-rows=0", "--out=parts", "--no-plot"),
    "paths": (),
    "pause": ("2h",),
    "policy reset": ("min_cohort",),
    "policy set": ("min_cohort", "4"),
    "policy show": (),
    "resume": (),
    "service install": ("--dry-run",),
    "service status": (),
    "service uninstall": ("--dry-run",),
    "set": ("device.threads=2",),
    "status": (),
    "uninstall": ("--dry-run",),
    "version": (),
}
# Commands that end soon, without a federation, a terminal or a server: what they ask is refused.
REFUSED: dict[str, tuple[tuple[str, ...], int]] = {
    "adapters list": ((), 4),
    "adapters pull": ((), 4),
    "adapters verify": (("absent",), 2),
    "consent diff": ((), 4),
    "consent show": ((), 4),
    "consent withdraw": ((), 4),
    "export": (("--to", "peft"), 4),
    "fit": ((), 4),
    "outbox export": (("1",), 2),
    "outbox show": (("1",), 2),
    "prefetch": ((), 4),
    "privacy": ((), 4),
    "chat": ((), 4),
    "finish": ((), 4),
    "config edit": ((), 2),
    "data preview": (("rows.jsonl",), 5),
    "data remove": (("rows.jsonl",), 9),
    "demo": (("--data", "absent.jsonl"), 9),
    "eval models": (("nowhere", "--data", "rows.jsonl"), 2),
    "eval own": ((), 4),
    "eval tasks": (("nowhere", "--task", "arc_easy"), 2),
    "eval report": (("absent.jsonl",), 12),
    "judge agreement": (("absent.jsonl",), 12),
    "judge run": (("absent.jsonl", "--judge", "j", "--out", "v.jsonl"), 12),
    "judge validate": (("absent.jsonl", "--judge", "j", "--out", "v.jsonl"), 12),
    "join": (("--data", "rows.jsonl"), 2),
    "leave": (("--erase",), 2),
    "run": ((), 4),
}


def commands(command: Any = None, name: str = "") -> Iterator[str]:
    """Every command that does something, two words for one in a group."""
    command = command or get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
    for word, below in (inner or {}).items():
        yield from commands(below, f"{name} {word}".strip())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home, the current folder with some rows, no settings from outside, a stdin that is closed."""
    for name in [name for name in os.environ if name.startswith(("FEDIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    (tmp_path / "rows.jsonl").write_text('{"prompt":"a","completion":"b"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def read(stdout: str) -> dict[str, Any]:
    """The one object that a command ends with; what comes before are events."""
    *events, last = [json.loads(line) for line in stdout.splitlines()]
    for event in events:
        EventLine.model_validate(event)
    Envelope.model_validate(last)
    return dict(last)


def fields(value: Any, name: str = "") -> set[str]:
    """The names of all fields below a value, dotted; a list's items as `[]`."""
    if isinstance(value, dict):
        return {name} | {found for key, inner in value.items() for found in fields(inner, f"{name}.{key}")}
    if isinstance(value, list):
        return {name} | {found for inner in value for found in fields(inner, f"{name}[]")}
    return {name}


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_answers_with_one_object_and_asks_nothing(
    command: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused, status = REFUSED.get(command, (UNKNOWN, 2))
    arguments = HARMLESS.get(command, refused)
    ended = invoke([*command.split(), *arguments, "--json"])
    answer = read(capsys.readouterr().out)
    assert (answer["command"], answer["ok"]) == (command, ended == 0)
    assert ended == (0 if command in HARMLESS else status)
    assert (answer["error"] or {"exit": 0})["exit"] == ended
    invoke([*command.split(), *arguments, "--no-input", "-q"])
    said = capsys.readouterr()
    assert "? " not in said.out
    assert "Traceback" not in said.err


def test_every_tried_command_exists() -> None:
    assert HARMLESS.keys() | REFUSED.keys() <= set(commands())


@pytest.mark.slow
def test_an_unknown_option_is_an_object_for_every_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands():
        assert invoke([*command.split(), *UNKNOWN, "--json"]) == 2
        answer = read(capsys.readouterr().out)
        assert (answer["command"], answer["error"]["code"]) == (command, "FEDIT-U001")


def test_fields_are_only_added(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A field that scripts may read stays. New ones: run with FEDIT_TEST_SNAPSHOTS=1 to keep them."""
    file = SNAPSHOTS / "json_fields.json"
    found: dict[str, list[str]] = {}
    for command, arguments in sorted(HARMLESS.items()):
        if command != "config schema":  # a JSON Schema is no record
            invoke([*command.split(), *arguments, "--json"])
            found[command] = sorted(fields(read(capsys.readouterr().out)["data"]) - {""})
    if KEEP:
        file.write_text(json.dumps(found, indent=1) + "\n")
    for command, names in json.loads(file.read_text()).items():
        assert set(names) - set(found[command]) == set(), command


@pytest.mark.parametrize("name", [SCHEMA, EVENT_SCHEMA])
def test_the_published_schemas_are_these(name: str) -> None:
    file = SNAPSHOTS / f"{name.replace('/', '-')}.schema.json"
    if KEEP:
        file.write_text(json.dumps(schemas()[name], indent=1) + "\n")
    assert json.loads(file.read_text()) == schemas()[name]


def test_the_schemas_can_be_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["help", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {SCHEMA, EVENT_SCHEMA}


def test_exit_statuses_mean_what_they_meant() -> None:
    assert "\n".join(exit_code_lines()) + "\n" == (SNAPSHOTS / "exit_codes.txt").read_text("utf-8")


def test_a_stdin_that_is_not_there_is_nobody(home: Path) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m fedit_client leave --erase <&-"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, "FEDIT-U002" in ended.stderr) == (2, True), ended.stderr


def test_an_interrupted_command_ends_with_an_object_too(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedit_client.conversations.judging.chosen_pairs", interrupted)
    assert invoke(["--json", "judge", "agreement", "pairs.jsonl"]) == 130
    answer = read(capsys.readouterr().out)
    assert (answer["ok"], answer["error"]["code"], answer["error"]["exit"]) == (False, "INTERRUPTED", 130)
