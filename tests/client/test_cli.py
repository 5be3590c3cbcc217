"""The command as people and scripts meet it: a process, its words, its exit status. Nothing here needs a server."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedit_client.cli import hoisted, invoke

LINK = "fedit://127.0.0.1:1/j/K7QF-2M9D-XT4B-W8HC#sha256:" + "0" * 64
WITHOUT_TORCH = """
import importlib.util as util, sys
real = util.find_spec
util.find_spec = lambda name, *rest: None if name == "torch" else real(name, *rest)
from fedit_client.cli import main
main()
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run command lines in this process, without a terminal, from a fresh home."""
    for name in list(os.environ):
        if name.startswith("FEDIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))

    def invoked(*arguments: str) -> Done:
        status = invoke(list(arguments))
        return Done(status, *capsys.readouterr())

    return invoked


def as_process(
    *arguments: str, home: Path, code: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDIT_")}
    environment |= {"FEDIT_HOME": str(home), "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    program = ["-c", code] if code else ["-m", "fedit_client"]
    return subprocess.run(
        [sys.executable, *program, *arguments], env=environment | variables, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command line, what it must end with, and what its words must contain."""

    arguments: tuple[str, ...]
    status: int
    code: str
    words: str
    rows: str | None = None


ROW = '{"prompt":"a","completion":"b"}\n'
JOIN = ("join", "--server", LINK, "--data", "rows.jsonl")
ADD = ("data", "add", "rows.jsonl")
CASES = {
    "nothing was joined": Case(("run",), 4, "J001", "has not joined"),
    "chat before joining": Case(("chat", "--prompt", "hello"), 4, "J001", "has not joined"),
    "evaluating before joining": Case(("eval", "--watch"), 4, "J001", "has not joined"),
    "no server named": Case(
        ("join", "--data", "rows.jsonl"), 2, "U002", "no server is named", '{"prompt":"a","completion":"b"}'
    ),
    "a link that is none": Case(("join", "--server", "clinic"), 2, "U003", "not an invite link"),
    "plain http": Case(("join", "--server", "http://host"), 2, "U004", "HTTPS only"),
    "an unknown option": Case(("join", "--frobnicate"), 2, "U001", "frobnicate"),
    "an unknown command": Case(("frobnicate",), 2, "U001", "frobnicate"),
    "no data": Case(JOIN[:3], 9, "D020", "no data was given"),
    "a data file that is missing": Case(ADD, 9, "D001", "does not exist"),
    "an empty data file": Case(ADD, 9, "D002", "not a single row", ""),
    "a broken line": Case(ADD, 9, "D005", "line 2", '{"prompt":"a","completion":"b"}\n{"prompt":\n'),
    "unknown columns": Case(ADD, 9, "D004", "found a, q", '{"q":"a","a":"b"}\n'),
    "an unreachable server": Case(JOIN, 5, "N001", "127.0.0.1 port 1", '{"prompt":"a","completion":"b"}\n'),
    "a setting that cannot be": Case(("set", "device.threads=many"), 3, "C001", "device.threads"),
    "no such page": Case(("help", "Z999"), 2, "U007", "Z999"),
    "erasing unasked": Case(("leave", "--erase"), 2, "U002", "nobody is here to answer"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trouble_has_a_code_a_cause_and_a_cure(case: Case, tmp_path: Path, run: Run) -> None:
    if case.rows is not None:
        (tmp_path / "rows.jsonl").write_text(case.rows)
    arguments = [str(tmp_path / word) if word == "rows.jsonl" else word for word in case.arguments]
    done = run(*arguments)
    assert done.returncode == case.status, done.stderr
    assert f"fedit-client: error: FEDIT-{case.code}: " in done.stderr
    assert case.words in done.stderr
    assert re.search(rf"^  more:  fedit-client help {case.code}$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "identity.key").exists()


@pytest.mark.parametrize("group", [(), ("policy",), ("data",)], ids=["none", "policy", "data"])
def test_a_command_that_is_missing_shows_the_help_as_it_is_written(group: tuple[str, ...], run: Run) -> None:
    done = run(*group)
    assert (done.returncode, done.stdout, "FEDIT-" in done.stderr) == (2, "", False)
    assert done.stderr.startswith(" ".join(["Usage: fedit-client", *group, "[OPTIONS] COMMAND"]))
    answer = json.loads(run(*group, "--json").stdout)
    assert (answer["error"]["code"], "[OPTIONS]" in answer["error"]["message"]) == ("FEDIT-U001", False)


def test_what_was_typed_is_said_back_as_it_was_typed(run: Run) -> None:
    assert "no such command 'FroB'" in run("FroB").stderr


def test_the_same_trouble_in_json(run: Run) -> None:
    done = run("run", "--json")
    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["command"], answer["ok"]) == ("fedit/1", "run", False)
    assert answer["error"]["code"] == "FEDIT-J001"
    assert answer["error"]["exit"] == done.returncode == 4


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("--home", "elsewhere", "leave", "--json"), "leave"),
        (("--json", "data", "check", "absent.jsonl"), "data check"),
        (("--json", "--frobnicate"), ""),
    ],
)
def test_the_json_answer_names_the_command(
    arguments: tuple[str, ...], command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = json.loads(run(*arguments).stdout)
    assert (answer["command"], answer["ok"]) == (command, False)


def test_without_the_training_extra_join_says_what_to_install_and_sends_nothing(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt":"a","completion":"b"}\n')
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        link = LINK.replace(":1/", f":{listening.getsockname()[1]}/")
        done = as_process("join", "--server", link, "--data", str(rows), home=tmp_path / "home", code=WITHOUT_TORCH)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert done.returncode == 8
    assert "FEDIT-H005" in done.stderr
    assert "fedit-client setup" in done.stderr


def test_the_invite_code_is_in_no_output(tmp_path: Path, run: Run) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt":"a","completion":"b"}\n')
    done = run("-v", "join", "--server", LINK, "--data", str(rows))
    assert "Traceback" in done.stderr
    assert "K7QF" not in (done.stdout + done.stderr).replace("-", "")


@pytest.mark.parametrize(
    "arguments", [("--version",), ("version",), ("paths",), ("status",), ("help",), ("help", "t001")]
)
def test_quiet_commands_need_nothing(arguments: tuple[str, ...], tmp_path: Path, run: Run) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert not (tmp_path / "home").exists()


def test_status_of_nothing_in_json(run: Run) -> None:
    answer = json.loads(run("status", "--json").stdout)
    assert answer["ok"] is True
    assert answer["data"]["joined"] is False


def test_global_options_stand_on_either_side() -> None:
    assert hoisted(["status", "--json", "--home", "x"]) == ["--json", "--home", "x", "status"]
    assert hoisted(["chat", "--", "--json"]) == ["chat", "--", "--json"]
    assert hoisted(["join", "--home=x", "--yes"]) == ["--home=x", "--yes", "join"]


def test_a_terminal_that_knows_ascii_only_is_served(tmp_path: Path) -> None:
    done = as_process("status", home=tmp_path, PYTHONIOENCODING="ascii:backslashreplace")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", ["cp1252", "ascii"])
def test_a_code_page_without_our_symbols_ends_no_command(page: str, tmp_path: Path) -> None:
    """As Windows has it, and as it is for a file that the words go into: no error for an arrow."""
    (tmp_path / "client.toml").write_text("model = 'ζ → η'\n", "utf-8")
    done = as_process("get", "model", home=tmp_path, PYTHONIOENCODING=page, PYTHONUTF8="0")
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "? ? ?")


def test_help_loads_no_torch_and_no_network(tmp_path: Path) -> None:
    code = "import sys; from fedit_client.cli import invoke; invoke(['--help'])"
    check = "sys.exit(bool({'torch', 'aiohttp', 'numpy'} & set(sys.modules)))"
    done = as_process(home=tmp_path, code=f"{code}; {check}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "join" in done.stdout
