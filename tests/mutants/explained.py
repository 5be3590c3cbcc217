"""Survivors that no test needs to kill: those that change nothing, by kind or one by one, each with the reason."""

import re
from typing import Final

_STRING: Final = r'f?"(?:[^"\\]|\\.)*"'
_CODE: Final = re.compile(rf"code={_STRING}")
_ERROR: Final = re.compile(r"\braise\b|Error\(|_refused\(|holds, ")

ONE_BY_ONE: Final[dict[str, str]] = {}
"""`module: the line that the mutant puts in` → why it is no other program, or one that nobody can tell from ours."""


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
    return ONE_BY_ONE.get(f"{module}: {added}", "")


def _without(line: str, *patterns: str) -> str:
    for pattern in patterns:
        line = re.sub(pattern, "", line)
    return line


def _without_texts(line: str) -> str:
    """The line with every text as `T`, but for an error's code, by which people look it up."""
    codes = "".join(_CODE.findall(line))
    return re.sub(rf"{_STRING}|\bNone\b", "T", _CODE.sub("code", line)) + codes
