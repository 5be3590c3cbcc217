"""The fix of an error, pasted as it is, is the person's own command with what it lacked, and no secret."""

import ast
import asyncio
import io
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fedit_client
from fedit_client.cli import invoke

from .test_cli_join import Joining, joining
from .trouble import ROW

__all__ = ["joining"]

CHAT = '{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}\n'
TWICE = '{"prompt":"a","completion":"b","instruction":"c","output":"d"}\n'
AGREE = ("--accept", "test-task@1")


@dataclass(frozen=True)
class Case:
    """A command that lacks something; `{…}` in its words is filled in."""

    words: tuple[str, ...]
    code: str
    rows: str = ROW
    pin: bool = True
    works: bool = True
    """Whether the fix needs nothing more; else it ends with another code than before."""


JOIN = ("--home", "{home} with blanks", "join", "--no-run", "--server", "{link}")
CASES = {
    "nobody to agree": Case((*JOIN, "--data", "{rows}", "--device", "cpu"), "A001"),
    "a yes to another version": Case(
        (*JOIN, "--data", "{rows}", "--device", "cpu", "--accept", "test-task@7"), "A003"
    ),
    "no yes to the CPU": Case((*JOIN, "--data", "{rows}", *AGREE), "A006"),
    "a GPU that is not there": Case((*JOIN, "--data", "{rows}", *AGREE, "--device", "cuda"), "H002"),
    "no rows": Case((*JOIN, "--device", "cpu", *AGREE), "D020"),
    "no server": Case(("--home", "{home}", "join", "--data", "{rows}", "--device", "cpu"), "U002", works=False),
    "no pin": Case((*JOIN, "--data", "{rows}", "--device", "cpu", "--code", "K7QF-2M9D-XT4B-W8HC", *AGREE), "T003",
                   pin=False),
    "plain http": Case(("join", "--server", "http://127.0.0.1:{port}", "--data", "{rows}"), "U004", works=False),
    "a map that is none": Case(("--home", "{home}", "data", "add", "{rows}", "--map", "x"), "U001", works=False),
    "a map to no column": Case(
        ("--home", "{home}", "data", "add", "{rows}", "--map", "prompt=promt", "--map", "response=completion"), "D004"
    ),
    "a map of an unknown name": Case(
        ("--home", "{home}", "data", "add", "{rows}", "--map", "x=prompt"), "D017", works=False
    ),
    "columns that fit twice": Case(("--home", "{home}", "data", "add", "{rows}"), "D006", TWICE),
    "columns that fit twice, at join": Case((*JOIN, "--data", "{rows}", "--device", "cpu", *AGREE), "D006", TWICE),
    "plain text": Case(("--home", "{home}", "data", "add", "{rows}"), "D018", '{"text":"a"}\n'),
    "a bad row": Case(("--home", "{home}", "data", "check", "{rows}", "--on-error", "stop"), "D008",
                      ROW + '{"prompt":"a","completion":" "}\n'),
    "only bad rows": Case(("--home", "{home}", "data", "add", "{rows}"), "D008", '{"prompt":"a","completion":" "}\n'),
    "only bad rows, to be skipped": Case(
        ("--home", "{home}", "data", "add", "{rows}", "--on-error", "skip"), "D011", '{"prompt":"a","completion":" "}\n'
    ),
    "nothing to check": Case(("--home", "{home}", "data", "check"), "D020", works=False),
    "an option that is none": Case(("--home", "{home}", "data", "check", "--frobnicate"), "U001"),
    "nobody to confirm": Case(("--home", "{home}", "leave", "--erase"), "U002", works=False),
    "nobody to talk to": Case(("--home", "{home}", "chat"), "J001", works=False),
    "a time that is none": Case(("--home", "{home}", "run", "--until", "later"), "U011", works=False),
    "rows and JSON on one stdout": Case(("--home", "{home}", "--json", "data", "convert", "{rows}"), "U001"),
    "a file that is there": Case(("--home", "{home}", "data", "convert", "{rows}", "--out", "{rows}"), "U001"),
}  # fmt: skip


def fix_in(err: str) -> str:
    """The first line of the fix."""
    return next(line for line in err.splitlines() if line.startswith("  fix:   ")).removeprefix("  fix:   ")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_fix_that_is_pasted_works(
    case: Case, joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDIT_HOME")
    monkeypatch.delenv("FEDIT_SERVER")
    rows = tmp_path / "our rows.jsonl"
    rows.write_text(case.rows)
    (tmp_path / "rows.jsonl").write_text(ROW)
    link = joining.https.invite if case.pin else f"https://127.0.0.1:{joining.https.port}"
    words = [word.format(home=joining.home, link=link, rows=rows, port=joining.https.port) for word in case.words]
    status = await asyncio.to_thread(invoke, words)
    err = joining.capsys.readouterr().err
    assert status
    assert f"FEDIT-{case.code}: " in err, err
    pasted = shlex.split(fix_in(err))
    assert pasted[0] == "fedit-client"
    status = await asyncio.to_thread(invoke, pasted[1:])
    err = joining.capsys.readouterr().err
    assert "unexpected extra argument" not in err.lower()
    if case.works:
        assert status == 0, err
    else:
        assert f"FEDIT-{case.code}: " not in err or "--map x" not in shlex.join(pasted), err
    if "--home" in words:
        assert pasted[1:3] == words[:2] or pasted[-1] == "--help" or pasted[1] == "help", pasted


async def test_an_invite_from_stdin_or_the_environment_is_in_no_fix(
    joining: Joining, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = joining.https.invite.partition("/j/")[2].partition("#")[0]
    assert await asyncio.to_thread(invoke, ["join", "--data", str(joining.rows), "--device", "cpu"]) == 7
    err = joining.capsys.readouterr().err
    assert code not in err
    assert fix_in(err) == f"fedit-client join --data {joining.rows} --device cpu --accept test-task@1"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{joining.https.invite}\n"))
    line = ["join", "--server", "-", "--data", str(joining.rows), "--device", "cpu"]
    assert await asyncio.to_thread(invoke, line) == 7
    err = joining.capsys.readouterr().err
    assert code not in err
    assert "--server - " in fix_in(err)


def test_options_that_would_have_helped_are_said_by_the_same_command() -> None:
    """An error whose fix repeats a command of ours with `…` has no options to say: `again` is for that."""
    wrong = [f"{place}: {text}" for place, text in literal_fixes() if "…" in text.replace("'fedit://…'", "")]
    assert wrong == []


def literal_fixes() -> Iterator[tuple[str, str]]:
    for path in Path(fedit_client.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for word in node.keywords if isinstance(node, ast.Call) else []:
                if word.arg == "fix":
                    yield from (
                        (f"{path.name}:{part.lineno}", part.value)
                        for part in ast.walk(word.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    )
