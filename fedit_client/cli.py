"""`fedit-client`: the tree of commands, the options before them, and how each ending becomes words and a status."""

import logging
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from fedit_client.commands import adapters, care, demo, joining, settings, standing
from fedit_client.commands.data import data_app
from fedit_client.commands.policy import policy_app
from fedit_client.commands.shared import Globals
from fedit_client.console import PROGRAM, Console
from fedit_protocol.errors import ConfigError, FeditError

INTERRUPTED: Final = 130
_INTERNAL: Final = 1
_USAGE: Final = 2

app = typer.Typer(
    name=PROGRAM,
    help="Take part in federated instruction tuning: your rows stay here; servers see only sums unless you allow more.",
    epilog="The options above may stand before or after the command. Exit codes: fedit-client help exit-codes",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors and results only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks, and what the libraries log.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask; a missing answer is an error.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Answer every question with yes, consent too.")] = False,
    home: Annotated[Path | None, typer.Option(help="One folder for everything (also FEDIT_HOME).")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings for this work, above client.toml; else ./fedit.toml.")
    ] = None,
    color: Annotated[
        Literal["auto", "always", "never"], typer.Option(help="Colours; auto looks at the terminal and NO_COLOR.")
    ] = "auto",
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,  # noqa: ARG001
) -> None:
    """Take part in federated instruction tuning: your rows stay here; servers see only sums unless you allow more."""
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    context.obj = Globals(Console(json, quiet, verbose, no_input, yes, color=color), home, config)


# The order of --help: taking part, what came of it, rows and limits, the rest.
app.command()(joining.join)
app.command()(joining.run)
app.command()(standing.status)
app.command()(joining.leave)
app.command()(adapters.chat)
app.command("eval")(adapters.evaluate)
app.add_typer(data_app, name="data")
app.add_typer(policy_app, name="policy")
app.command("set")(settings.change)
app.command()(settings.get)
app.add_typer(settings.config_app, name="config")
app.command()(settings.paths)
app.command()(demo.demo)
app.command()(care.version)
app.command("help")(care.help_page)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status (EXPERIENCE, section 2)."""
    sys.exit(invoke(list(sys.argv[1:] if argv is None else argv)))


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit status; every error ends as words and a code."""
    arguments = hoisted(["version"] if "--version" in arguments[:1] else arguments)
    console = Console(
        json="--json" in arguments,
        verbose=bool({"-v", "--verbose"} & set(arguments)),
        color="never" if "--color=never" in arguments or _follows(arguments, "--color", "never") else "auto",
    )
    command = command_of(arguments)
    try:
        status: Any = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except FeditError as error:
        console.fail(command, error)
        return error.exit_code
    except typer.TyperException as error:
        told = error.format_message()
        needs_command = told.startswith("Usage:")  # a group without its command: the message is the help text
        if needs_command and not console.json:
            typer.echo(told, err=True)
            return _USAGE
        cause = "a command is missing" if needs_command else told[:1].lower() + told[1:].rstrip(".")
        console.fail(command, ConfigError(cause, code="U001", fix=" ".join([PROGRAM, *command.split(), "--help"])))
        return _USAGE
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line: a person gets words, and a traceback on request
        broken = FeditError(f"this is a bug in FedIT: {type(error).__name__}: {error}", fix=f"{PROGRAM} -v {command} …")
        broken.__cause__ = error
        console.fail(command, broken)
        return _INTERNAL
    return status if isinstance(status, int) else 0


_FLAGS: Final = frozenset({"--json", "-q", "--quiet", "-v", "--verbose", "--no-input", "--yes"})
_VALUED: Final = ("--home", "--config", "--color")
_GROUPS: Final = frozenset(group.name for group in app.registered_groups)


def hoisted(arguments: list[str]) -> list[str]:
    """Move the global options to the front, so that they may stand on either side of the command."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _FLAGS or word.startswith(tuple(f"{name}=" for name in _VALUED)):
            front.append(word)
        elif word in _VALUED:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return front + rest


def _follows(arguments: Sequence[str], option: str, value: str) -> bool:
    return (option, value) in pairwise(arguments)


def command_of(arguments: Sequence[str]) -> str:
    """Return the command of a hoisted command line, two words for a group, or an empty text."""
    words = iter(arguments)
    for word in words:
        if word in _VALUED:
            next(words, None)
        elif not word.startswith("-"):
            second = next(words, "") if word in _GROUPS else ""
            return f"{word} {second}" if second and not second.startswith("-") else word
    return ""
