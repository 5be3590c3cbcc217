"""Every command of one program with its options, computed from the tree that typer builds."""

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

_HEAD = """# Commands of `{program}`

Made from the code (`python -m tests.documents`), and a test compares them. Options of every command stand first; they
may come before the command or after it. `{program} COMMAND --help` says the same.
"""


def command_reference(program: str, app: Any) -> str:
    """Return COMMANDS.md: one section per command, groups before what is in them."""
    tree = get_command(app)
    lines = [_HEAD.format(program=program), *_options(tree)]
    for words, command in _commands(tree, program):
        lines += [f"## `{words}{_arguments(command)}`", "", str(command.help or "").strip(), "", *_options(command)]
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        words = f"{path} {name}"
        if getattr(command, "commands", None):
            yield from _commands(command, words)
        elif not command.hidden:
            yield words, command


def _arguments(command: Any) -> str:
    return "".join(
        f" {parameter.metavar or str(parameter.name).upper()}"
        if parameter.required
        else f" [{parameter.metavar or str(parameter.name).upper()}]"
        for parameter in command.params
        if parameter.param_type_name == "argument"
    )


def _options(command: Any) -> list[str]:
    rows = [
        f"| `{', '.join(parameter.opts)}` | {_cell(_meaning(parameter))} |"
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden and "--help" not in parameter.opts
    ]
    return ["| option | meaning |", "|---|---|", *rows, ""] if rows else []


def _meaning(option: Any) -> str:
    """The help of an option, and the values that it takes where these are a few and the help does not name them all."""
    said = str(option.help or "")
    choices = [str(getattr(choice, "value", choice)) for choice in option.type_descriptor.choices or ()]
    return said if all(choice in said for choice in choices) else f"{said} One of: {', '.join(choices)}."


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")
