"""Every fix that an error names is a command that exists, with options that exist; so is every one in a help page."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fedit_client
import fedit_protocol.errors
from fedit_client.help_pages import documented_codes, help_lines

from .trouble import commands_in, missing_in


def fixes() -> Iterator[tuple[str, str]]:
    """Every text in the code that is given as a fix, with its place; what is filled in later reads X."""
    folders = [Path(fedit_client.__file__).parent, Path(fedit_protocol.errors.__file__).parent]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            given = [word.value for word in node.keywords if word.arg == "fix"] if isinstance(node, ast.Call) else []
            if isinstance(node, ast.Assign) and any(getattr(to, "attr", "") == "fix" for to in node.targets):
                given.append(node.value)
            for value in given:
                for text in texts(value):
                    yield f"{path.name}:{value.lineno}", text


def texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from (*texts(one), *texts(other))
        case ast.BinOp(left=left, right=right):
            yield "".join((*texts(left), *texts(right)))
        case ast.BoolOp(values=values):
            for value in values:
                yield from texts(value)


def test_no_fix_names_a_command_or_an_option_that_does_not_exist() -> None:
    found = list(fixes())
    assert len(found) > 100
    wrong = [
        f"{place}: {missing}" for place, text in found for line in commands_in(text) if (missing := missing_in(line))
    ]
    assert wrong == []


def test_no_help_page_names_a_command_that_does_not_exist() -> None:
    prose = {"runs", "has"}  # "another fedit-client runs on it"
    for code in documented_codes() | {"data", "limits", "settings"}:
        for line in commands_in(" ".join(help_lines(code))):
            if line.split()[1] not in prose and line.split()[2:3] != ["preview"]:
                assert missing_in(line) == "", (code, line)
