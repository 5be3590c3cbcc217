"""`fedit-client`: the tree of commands, the options before them, and how each ending becomes words and a status."""

import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from typer.main import get_command

from fedit_client.commands import (
    adapters,
    care,
    demo,
    fleet,
    joining,
    machine,
    page,
    partition,
    records,
    settings,
    standing,
)
from fedit_client.commands.consent import consent_app
from fedit_client.commands.data import data_app
from fedit_client.commands.evaluating import eval_app
from fedit_client.commands.fixes import pasteable
from fedit_client.commands.judging import judge_app
from fedit_client.commands.outbox import outbox_app
from fedit_client.commands.policy import policy_app
from fedit_client.commands.service import service_app
from fedit_client.commands.shared import Globals
from fedit_client.commands.shell_completion import answer_shells
from fedit_client.console import INTERRUPTED, PROGRAM, Console
from fedit_client.home.log_file import CommandLog
from fedit_client.home.paths import Paths
from fedit_protocol.errors import ConfigError, FeditError

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
    console: Console = context.obj or Console()  # none where another program runs these commands
    console.json, console.quiet, console.verbose = json, quiet, verbose
    console.no_input, console.yes, console.color = no_input, yes, color
    console.open_streams()
    context.obj = Globals(console, home, config)


# The order of --help: taking part, what came of it, rows and limits, the rest.
app.command()(joining.join)
app.command()(joining.run)
app.command()(standing.status)
app.command()(standing.pause)
app.command()(standing.resume)
app.command()(standing.finish)
app.command()(joining.leave)
app.command()(joining.uninstall)
app.command()(machine.fit)
app.command()(machine.prefetch)
app.command()(machine.setup)
app.command()(adapters.chat)
app.add_typer(eval_app, name="eval")
app.add_typer(judge_app, name="judge")
app.command()(adapters.export)
app.add_typer(adapters.adapters_app, name="adapters")
app.add_typer(data_app, name="data")
app.add_typer(policy_app, name="policy")
app.add_typer(service_app, name="service")
app.add_typer(consent_app, name="consent")
app.add_typer(outbox_app, name="outbox")
app.command()(records.history)
app.command()(records.privacy)
app.command()(records.explain)
app.command()(records.identity)
app.command("set")(settings.change)
app.command()(settings.get)
app.add_typer(settings.config_app, name="config")
app.command()(page.ui)
app.command()(settings.paths)
app.command()(demo.demo)
app.command()(fleet.fleet)
app.command()(partition.partition)
app.command()(care.doctor)
app.command()(care.bugreport)
app.command()(care.completion)
app.command()(care.version)
app.command("help")(care.help_page)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status (EXPERIENCE, section 2)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a code page without arrows is no reason to end a command
            stream.reconfigure(errors="replace")
    answer_shells()
    status = invoke(list(sys.argv[1:] if argv is None else argv))
    if status == INTERRUPTED:  # and again, and again: nothing is left that could be stopped
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit status; every error ends as words and a code."""
    arguments = hoisted(["version"] if "--version" in arguments[:1] else arguments)
    console = Console(
        json="--json" in arguments,
        quiet=bool({"-q", "--quiet"} & set(arguments)),
        verbose=bool({"-v", "--verbose"} & set(arguments)),
        color="never" if value_of_option(arguments, "--color") == "never" else "auto",
    )
    command, home = command_of(arguments), value_of_option(arguments, "--home") or os.environ.get("FEDIT_HOME")
    with CommandLog(Paths.find(Path(home) if home else None)) as log:
        try:
            status: Any = app(arguments, prog_name=PROGRAM, standalone_mode=False, obj=console)
            if status == INTERRUPTED:  # typer turns KeyboardInterrupt into a status
                console.interrupted(command)
        except (typer.Abort, KeyboardInterrupt):
            console.interrupted(command)
            return INTERRUPTED
        except SystemExit as end:  # 1: whoever read our words has gone; else a shell has asked how words may go on
            return INTERRUPTED if end.code == 1 else 0
        except Exception as error:  # noqa: BLE001 - the last line: a person gets words, the log file a traceback
            failure = _failure(error, arguments, console)
            if failure is not None:
                console.fail(command, failure, log.failed(command, failure))
                return failure.exit_code
            return _USAGE
    return status if isinstance(status, int) else 0


def _failure(error: Exception, arguments: Sequence[str], console: Console) -> FeditError | None:
    """Return the error that a person is told; None where the help text is what they need."""
    command = command_of(arguments)
    if isinstance(error, FeditError):
        error.fix = pasteable(error, arguments, _place(command)[0], _given_everywhere(arguments))
        return error
    if isinstance(error, typer.TyperException):
        told = error.format_message()
        needs_command = told.startswith("Usage:")  # a group without its command: the message is the help text
        if needs_command and not console.json:
            typer.echo(told, err=True)
            return None
        cause = "a command is missing" if needs_command else told[:1].lower() + told[1:].rstrip(".")
        return ConfigError(cause, code="U001", fix=" ".join([PROGRAM, *_place(command)[1], "--help"]))
    broken = FeditError(f"this is a bug in FedIT: {type(error).__name__}: {error}", fix=f"{PROGRAM} bugreport")
    broken.__cause__ = error
    return broken


def _place(command: str) -> tuple[Any, list[str]]:
    """Return what a command line calls, and as many of its words as there are."""
    found: list[str] = []
    place: Any = get_command(app)
    for word in command.split():
        inner = getattr(place, "commands", {}).get(word)
        if inner is None:
            break
        place = inner
        found.append(word)
    if default := getattr(place, "default", None):  # a command that may be left out
        place = place.commands[default]
    return place, found


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


def value_of_option(arguments: Sequence[str], option: str) -> str | None:
    """Return what a hoisted command line gives an option before the command, as `--name value` or `--name=value`."""
    words = iter(arguments)
    for word in words:
        if word == option:
            return next(words, None)
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word in _VALUED:
            next(words, None)
        elif not word.startswith("-"):
            return None
    return None


def command_of(arguments: Sequence[str]) -> str:
    """Return the command of a hoisted command line, two words for a group, or an empty text."""
    words = iter(arguments)
    for word in words:
        if word in _VALUED:
            next(words, None)
        elif not word.startswith("-"):
            second = next(words, "") if word in _GROUPS else ""
            return f"{word} {second}" if second and not second.startswith("-") and "://" not in second else word
    return ""


def _given_everywhere(arguments: Sequence[str]) -> list[str]:
    """Return the home and the settings file of a hoisted command line, as options for any other one."""
    found = {option: value_of_option(arguments, option) for option in ("--home", "--config")}
    return [word for option, value in found.items() if value is not None for word in (option, value)]
