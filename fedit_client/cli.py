"""`fedit-client`: parse, call the SDK, print. Nothing is decided here, and torch is never imported."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from fedit_client.console import PROGRAM, Console
from fedit_client.policy_commands import policy_app
from fedit_protocol.errors import ConfigError, FeditError

if TYPE_CHECKING:
    from fedit_client.client import Client
    from fedit_client.config import ClientConfig

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
data_app = typer.Typer(help="Look at the rows before they are used.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(policy_app, name="policy")


@dataclass(frozen=True)
class Globals:
    """What the options before the command have said."""

    console: Console
    home: Path | None

    def config(self, **flags: Any) -> "ClientConfig":
        """Merge flags, environment and file; flags that were not given are left out."""
        from fedit_client.config import load_config

        return load_config(self.home, {name: value for name, value in flags.items() if value not in (None, {})})


Device = Literal["auto", "cpu", "cuda"]
Server = Annotated[str | None, typer.Option(help="Invite link or https:// address; - reads it from stdin.")]
DeviceOption = Annotated[Device | None, typer.Option(help="Where to train; auto takes a GPU if there is one.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for training; default: what is free.")]
Model = Annotated[str | None, typer.Option(help="Where the base lies, if not where the task says: folder or hub id.")]
OnErrorOption = Annotated[Literal["stop", "skip"], typer.Option(help="What to do with rows that cannot be used.")]
MaxRounds = Annotated[int | None, typer.Option(min=1, help="Stop after this many committed rounds.")]


@app.callback()
def options(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors and results only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks, and what the libraries log.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask; a missing answer is an error.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Answer every question with yes, consent too.")] = False,
    home: Annotated[Path | None, typer.Option(help="One folder for everything (also FEDIT_HOME).")] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,  # noqa: ARG001
) -> None:
    """Take part in federated instruction tuning: your rows stay here; servers see only sums unless you allow more."""
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    context.obj = Globals(Console(json, quiet, verbose, no_input, yes), home)


@app.command()
def join(
    context: typer.Context,
    server: Server = None,
    pin: Annotated[str | None, typer.Option(help="sha256:… that the server's identity must have.")] = None,
    code: Annotated[str | None, typer.Option(help="Invite code, for an https:// address.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Rows to train on; may be repeated.")] = None,
    on_error: OnErrorOption = "stop",
    name: Annotated[str, typer.Option(help="A name that the organiser will see; may be empty.")] = "",
    task: Annotated[str | None, typer.Option(help="Which task, where the server has several.")] = None,
    accept: Annotated[str | None, typer.Option(metavar="TASK@N", help="Agree to exactly this task.")] = None,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
    max_rounds: MaxRounds = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Join only; `run` takes part later.")] = False,
) -> None:
    """Join a federation, agree to its task, and take part until it ends or Ctrl-C."""
    from fedit_client.joining import JoinWishes
    from fedit_client.joining import join as lead_through
    from fedit_client.running import attend, run_async

    given: Globals = context.obj
    config = given.config(server=_from_stdin(server), model=model, device=_device_flags(device, threads))
    client = _client(config, pin=pin, code=code)
    wishes = JoinWishes(tuple(data or ()), on_error, task, accept, name)
    offer = run_async(lead_through(client, given.console, wishes))
    if not no_run:
        attend(client, given.console, max_rounds)
    adapter = client.latest_adapter()
    result = {"task": offer.summary.label, "joined": True, "adapter": str(adapter) if adapter else None}
    given.console.answer("join", result, [])


@app.command()
def run(context: typer.Context, max_rounds: MaxRounds = None, device: DeviceOption = None, threads: Threads = None,
        model: Model = None) -> None:  # fmt: skip
    """Take part in rounds until the task ends or Ctrl-C."""
    from fedit_client.running import attend

    given: Globals = context.obj
    client = _client(given.config(model=model, device=_device_flags(device, threads)))
    attend(client, given.console, max_rounds)
    adapter = client.latest_adapter()
    given.console.answer("run", {"adapter": str(adapter) if adapter else None}, [])


@app.command()
def status(context: typer.Context) -> None:
    """Show what was joined, how far it is, and where the newest adapter lies."""
    from dataclasses import asdict

    from fedit_client.standing import standing

    given: Globals = context.obj
    found = standing(given.config())
    given.console.answer("status", asdict(found), found.lines())


@app.command()
def leave(
    context: typer.Context,
    erase: Annotated[bool, typer.Option("--erase", help="Also remove identity, adapters, caches, settings.")] = False,
    new_key: Annotated[bool, typer.Option("--new-key", help="Also remove identity; the next join makes one.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not tell the server; for one that is gone.")] = False,
) -> None:
    """Leave the federation: the server forgets this device. Adapters stay, unless --erase."""
    from fedit_client.running import run_async

    given: Globals = context.obj
    if erase and not given.console.confirm("Remove identity, adapters, caches and settings for good?", flag="--yes"):
        raise ConfigError("nothing was removed", code="U002", fix="fedit-client leave, to keep the adapters")
    removed = run_async(_client(given.config()).leave(erase=erase, offline=offline, new_key=new_key))
    lines = [*(f"removed {path}" for path in removed), "left; sums of past rounds hold your part and cannot be undone"]
    given.console.answer("leave", {"removed": [str(path) for path in removed]}, lines)


@app.command()
def chat(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Option(help="Ask this and stop.")] = None,
    compare: Annotated[Literal["base"] | None, typer.Option(help="Ask the base the same.")] = None,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
) -> None:
    """Talk with the newest global adapter."""
    from fedit_client.running import run_async
    from fedit_client.talk import talk

    given: Globals = context.obj
    config = given.config(model=model, device=_device_flags(device, threads))
    adapter = _client(config).latest_adapter()
    run_async(talk(config, given.console, adapter, prompt, beside=compare == "base"))


@app.command("eval")
def evaluate(
    context: typer.Context,
    server: Annotated[str | None, typer.Argument(metavar="URL", help="The server; must be the joined one.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Held-out rows; may be repeated.")] = None,
    on_error: OnErrorOption = "stop",
    watch: Annotated[bool, typer.Option("--watch", help="Wait for each new adapter until Ctrl-C.")] = False,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
) -> None:
    """Compare each new adapter with the one before on rows of your own, and report both losses, signed."""
    from fedit_client.evaluating import EvaluationWishes
    from fedit_client.evaluating import evaluate as compare
    from fedit_client.running import run_async

    given: Globals = context.obj
    config = given.config(model=model, device=_device_flags(device, threads))
    try:
        found = run_async(compare(config, given.console, EvaluationWishes(server, tuple(data or ()), on_error, watch)))
    except KeyboardInterrupt:
        given.console.say("stopped; reports that were sent stay with the server")
        raise
    given.console.answer("eval", {"evaluations": found}, [])


@app.command()
def demo(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Your own rows instead of the bundled ones.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: folder or hub id.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=20, help="Rounds; default: the task's.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep everything in this folder.")] = None,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="Skip the answers before and after.")] = False,
) -> None:
    """Run a server and three clients here, and compare what each learns alone with what they learn together."""
    from fedit_client.demo import DemoWishes, rehearse
    from fedit_client.running import run_async

    given: Globals = context.obj
    wishes = DemoWishes(data, model, rounds, keep, chat=not no_chat)
    try:
        report = run_async(rehearse(given.config().paths, given.console, wishes))
    except KeyboardInterrupt:
        given.console.say("stopped; server, clients and training have ended")
        raise
    given.console.answer("demo", report.as_data(), [])
    if not report.together_is_best:
        raise typer.Exit(_INTERNAL)


@data_app.command("check")
def check(
    context: typer.Context, path: Annotated[Path, typer.Argument(help=".jsonl, .json, .csv or .parquet")]
) -> None:
    """Check a file: columns, broken rows with their lines, categories. Nothing leaves, nothing changes."""
    from fedit_client.checking import check_file

    given: Globals = context.obj
    check_file(given.console, path)


@app.command("set")
def change(context: typer.Context, settings: Annotated[list[str], typer.Argument(metavar="KEY=VALUE…")]) -> None:
    """Change settings in client.toml; comments in the file stay."""
    from fedit_client.config import change_settings

    given: Globals = context.obj
    changed = change_settings(given.config().paths, settings)
    given.console.answer("set", dict(changed), [f"{key} is now {value}" for key, value in changed.items()])


@app.command()
def paths(context: typer.Context) -> None:
    """Show where everything lies on this machine."""
    given: Globals = context.obj
    places = given.config().paths.labelled()
    lines = [f"{name:<11} {place}" for name, place in places.items()]
    given.console.answer("paths", {name: str(place) for name, place in places.items()}, lines)


@app.command()
def version(context: typer.Context) -> None:
    """Show the version of FedIT and of the protocol it speaks."""
    from fedit_client.client import installed_version
    from fedit_protocol.version import PROTOCOL_NAME, PROTOCOL_VERSION

    given: Globals = context.obj
    spoken = f"{PROTOCOL_NAME} {PROTOCOL_VERSION[0]}.{PROTOCOL_VERSION[1]}"
    found = {"fedit": installed_version(), "protocol": spoken, "python": sys.version.split()[0]}
    given.console.answer("version", found, [f"fedit {found['fedit']} · {spoken} · Python {found['python']}"])


@app.command("help")
def help_page(
    context: typer.Context, topic: Annotated[str, typer.Argument(help="An error code such as D014, or a topic.")] = ""
) -> None:
    """Explain an error code or a topic, offline."""
    from fedit_client.help_pages import help_lines

    given: Globals = context.obj
    lines = help_lines(topic)
    given.console.answer("help", {"topic": topic, "text": "\n".join(lines)}, lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status (EXPERIENCE, section 2)."""
    sys.exit(invoke(list(sys.argv[1:] if argv is None else argv)))


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit status; every error ends as words and a code."""
    arguments = hoisted(["version"] if "--version" in arguments[:1] else arguments)
    console = Console(json="--json" in arguments, verbose=bool({"-v", "--verbose"} & set(arguments)))
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
_GROUPS: Final = frozenset({"data", "policy"})


def hoisted(arguments: list[str]) -> list[str]:
    """Move the global options to the front, so that they may stand on either side of the command."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _FLAGS or word.startswith("--home="):
            front.append(word)
        elif word == "--home":
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return front + rest


def command_of(arguments: Sequence[str]) -> str:
    """Return the command of a hoisted command line, two words for a group, or an empty text."""
    words = iter(arguments)
    for word in words:
        if word == "--home":
            next(words, None)
        elif not word.startswith("-"):
            second = next(words, "") if word in _GROUPS else ""
            return f"{word} {second}" if second and not second.startswith("-") else word
    return ""


def _client(config: "ClientConfig", pin: str | None = None, code: str | None = None) -> "Client":
    from fedit_client.client import Client

    return Client.open(config=config, pin=pin, code=code)


def _from_stdin(server: str | None) -> str | None:
    return sys.stdin.readline().strip() if server == "-" else server


def _device_flags(device: Device | None, threads: int | None) -> dict[str, Any]:
    return {name: value for name, value in (("prefer", device), ("threads", threads)) if value is not None}
