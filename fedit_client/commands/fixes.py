"""The fix of an error as a line that can be pasted: the person's own words come back, with what they lacked."""

import re
from collections.abc import Iterator, Sequence
from shlex import join, split
from typing import Any, Final

from fedit_client.console import PROGRAM
from fedit_protocol.errors import FeditError

_ABOUT_WORDS: Final = frozenset({"--json", "-q", "--quiet", "-v", "--verbose", "--no-input"})
"""Options that decide how a command talks, not what it does: a person who pastes a fix reads plain words."""
_COMMAND: Final = re.compile(rf"{PROGRAM} (?=[a-z])(?!help\b|version\b|completion\b)")


def pasteable(error: FeditError, words: Sequence[str], command: Any, everywhere: Sequence[str]) -> str | None:
    """Return the fix of an error after the command line of these words.

    `words` are the arguments as they were typed, `command` what they called and `everywhere` the options that may stand
    before any command, with their values: where a home was named, every command of a fix has to name it again. What
    came on stdin or in the environment is in no word, and so in no fix.
    """
    if error.again is not None and (again := _again(error.again, words, command)) is not None:
        return "\n".join(again)
    if error.fix is None or not everywhere:
        return error.fix
    return _COMMAND.sub(lambda found: f"{found[0]}{join(everywhere)} ", error.fix)


def _again(again: str, words: Sequence[str], command: Any) -> list[str] | None:
    """The command line with each choice of options added; None where the command does not take them."""
    choices = [split(line) for line in again.splitlines() or [""]]
    known = {option for parameter in getattr(command, "params", ()) for option in parameter.opts} | {
        "--yes",
        "--home",
        "--config",
    }
    if not all(word in known for choice in choices for word in choice if word.startswith("--")):
        return None
    return [join([PROGRAM, *_without(choice, words), *choice]) for choice in choices]


def _without(added: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    """The words but for earlier values of the options that are added."""
    replaced = {word for word in added if word.startswith("--")}
    left = iter(word for word in words if word not in _ABOUT_WORDS)
    for word in left:
        name, equals, _ = word.partition("=")
        if name not in replaced:
            yield word
        elif not equals:
            next(left, None)
