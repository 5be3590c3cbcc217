"""Survivors that no test needs to kill: those that change nothing, by kind or one by one, each with the reason."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

_STRING: Final = r'f?"(?:[^"\\]|\\.)*"'
_CODE: Final = re.compile(rf"code={_STRING}")
_ERROR: Final = re.compile(r"\braise\b|Error\(|_refused\(|\bfix=|holds, |^ProblemType\.|^f?\"")

ONE_BY_ONE: Final = Path(__file__).with_name("explained.toml")
"""Module → entries of `lines` that a mutant puts in, and the `reason` why no test needs to kill it."""


@cache
def _reasons() -> dict[tuple[str, str], str]:
    modules = tomllib.loads(ONE_BY_ONE.read_text("utf-8"))
    return {
        (name, line): entry["reason"] for name, found in modules.items() for entry in found for line in entry["lines"]
    }


def why_harmless(module: str, change: str) -> str:
    """Return why a mutant's change needs no test, or an empty text; `change` is one `-` line and one `+` line."""
    lines = [line.strip() for line in change.splitlines()]
    removed = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    added = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    if _ERROR.search(removed) and _without_texts(removed) == _without_texts(added):
        return "words of an error"
    if _without(removed, r", strict=\w+") == _without(added, r", strict=\w+", r", (?=\))"):
        return "zip of lists that are of one length by construction"
    if _without(removed, r', "big"') == _without(added, r", (?=\))"):
        return "the library's own default"
    return _reasons().get((module, added), "")


def _without(line: str, *patterns: str) -> str:
    for pattern in patterns:
        line = re.sub(pattern, "", line)
    return line


def _without_texts(line: str) -> str:
    """The line with every text as `T`, but for an error's code, by which people look it up."""
    codes = "".join(_CODE.findall(line))
    return re.sub(rf"{_STRING}|\bNone\b", "T", _CODE.sub("code", line)) + codes
