"""Small parts of the command line: options that may stand anywhere, and durations as people write them."""

import re
from collections.abc import Sequence
from typing import Final

from fedit_protocol.errors import ConfigError

FLAGS: Final = frozenset({"--json", "--quiet", "-q", "--verbose", "-v", "--no-input", "--yes", "--version"})
VALUED: Final = {"--home": "--home", "--data": "--home", "--config": "--config", "--color": "--color"}
"""Options with a value, and the name under which they are handed on."""

REMOTE: Final = frozenset({"--server", "--pin", "--token-file"})
"""Options with a value that say which server elsewhere a command is for."""

OWN_SERVER: Final = frozenset({"authority", "metrics", "health"})
"""Commands that have options of these names for themselves, or are about the server of this folder."""

GROUPS: Final = frozenset(
    {
        "adapter",
        "audit",
        "authority",
        "backup",
        "authority clients",
        "authority invite",
        "cert",
        "clients",
        "config",
        "db",
        "eval",
        "evaluator",
        "invite",
        "keys",
        "replica",
        "round",
        "task",
        "token",
        "webhook",
    }
)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def lift_global_options(arguments: Sequence[str]) -> list[str]:
    """Move options that every command has to the front: `status --json` is `--json status`."""
    front: list[str] = []
    rest: list[str] = []
    queue = list(arguments)
    remote = frozenset() if _first_word(arguments) in OWN_SERVER else REMOTE
    while queue:
        argument = queue.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--":
            return [*front, *rest, argument, *queue]
        if argument in FLAGS:
            front.append(argument)
        elif name in VALUED and (equals or queue):
            front += [VALUED[name], value if equals else queue.pop(0)]
        elif name in remote and (equals or queue):
            front += [name, value if equals else queue.pop(0)]
        else:
            rest.append(argument)
    return front + rest


def _first_word(arguments: Sequence[str]) -> str:
    words = iter(arguments)
    for word in words:
        if word in VALUED or word in REMOTE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""


def command_of(lifted: Sequence[str]) -> str:
    """Return the command's name for messages: one word, or more where commands come in groups."""
    named = ""
    words = iter(lifted)
    for word in words:
        if word in VALUED.values() or word in REMOTE:
            next(words, None)
        elif word.startswith("-"):
            if named:
                break
        else:
            named = f"{named} {word}".strip()
            if named not in GROUPS:
                break
    return named


def duration_s(text: str) -> int:
    """Return the seconds of `7d`, `12h`, `30m`; raises ConfigError U024."""
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ConfigError(f"{text!r} is not a duration", code="U024", fix="write 7d, 12h or 30m")
    return int(match[1]) * _UNITS[match[2]]
