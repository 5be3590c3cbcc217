"""`fedit-server`: parse, call, print. Nothing here needs the server extra to be imported, so `--help` always works."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from fedit_protocol.errors import ConfigError, FeditError
from fedit_server.commands import (
    access,
    approval,
    audit,
    care,
    certificates,
    deploying,
    retention,
    settings,
    watching,
    webhooks,
)
from fedit_server.commands import authority as authority_commands
from fedit_server.commands import operate as commands
from fedit_server.commands.arguments import command_of, lift_global_options
from fedit_server.commands.backup import backup_app
from fedit_server.commands.context import CommandContext, ask, need_server_extra
from fedit_server.commands.database import db_app
from fedit_server.commands.evaluations import eval_app
from fedit_server.commands.replica import replica_app
from fedit_server.commands.rounds import live_round_app
from fedit_server.commands.shell_completion import answer_shells
from fedit_server.commands.tasks import task_app
from fedit_server.commands.words import status_lines
from fedit_server.console import PROGRAM, Color, Console
from fedit_server.logs import configure_logs
from fedit_server.running.memory import growing

Cert = Annotated[Path | None, typer.Option("--cert", help="Certificate from elsewhere (PEM, leaf first).")]
Key = Annotated[Path | None, typer.Option("--key", help="The key of that certificate (PEM).")]
HELP: Final = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(name=PROGRAM, add_completion=False, context_settings=HELP, rich_markup_mode=None)
app.add_typer(live_round_app, name="round", help="Rounds: list, show, status, watch, close, abort, approve, reject.")
app.add_typer(commands.invite_app, name="invite", help="Invites: create (the default), list, revoke.")
app.add_typer(commands.clients_app, name="clients", help="Devices: list (the default), block, unblock, revoke, forget.")
app.add_typer(approval.evaluator_app, name="evaluator", help="Devices that evaluate: list (the default), add, remove.")
app.add_typer(eval_app, name="eval", help="What evaluators reported of each round: list.")
app.add_typer(commands.keys_app, name="keys", help="The server's signing key: rotate.")
app.add_typer(
    authority_commands.authority_app,
    name="authority",
    help="An enrolment authority apart: init, run, log, clients, revoke, invite.",
)
app.add_typer(task_app, name="task", help="Tasks: create, list, show, edit, open, pause, resume, close, archive, log.")
app.add_typer(backup_app, name="backup", help="Backups of the whole server: create, verify, restore.")
app.add_typer(db_app, name="db", help="The database: upgrade, check, move-to.")
app.add_typer(replica_app, name="replica", help="Several servers on one database: list, key, seal.")
app.add_typer(commands.adapter_app, name="adapter", help="Adapter versions: list, export, rollback.")
commands.adapter_app.command("prune")(retention.adapter_prune)
task_app.command("retention")(retention.task_retention)
app.add_typer(access.token_app, name="token", help="Tokens of the admin API, and login links: create, list, revoke.")
app.add_typer(webhooks.webhook_app, name="webhook", help="Who is told of rounds: create, list, ping, remove.")
app.add_typer(audit.audit_app, name="audit", help="The log of every change: tail, export, verify.")


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say less.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more; tracebacks too.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask (it never does).")] = False,  # noqa: ARG001
    yes: Annotated[bool, typer.Option("--yes", help="Answer yes to questions (it asks none).")] = False,  # noqa: ARG001
    home: Annotated[Path | None, typer.Option("--home", help="Data folder [FEDIT_HOME].")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file, if not server.toml in it.")] = None,
    color: Annotated[Color, typer.Option("--color", help="When to use colours.")] = "auto",
    server: Annotated[
        str | None, typer.Option("--server", help="https://HOST[:PORT][#PIN] of a server elsewhere [FEDIT_SERVER_URL].")
    ] = None,
    pin: Annotated[str | None, typer.Option("--pin", help="sha256:… of that server; else this system's roots.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Token for that server [FEDIT_TOKEN].")
    ] = None,
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version.")] = False,
) -> None:
    """Coordinates federated training; sees sums only, unless allowed more. Options here work behind every command."""
    said, command = Console(as_json, quiet, verbose, color=color), context.invoked_subcommand or ""
    context.obj = CommandContext(said, home, config, server, pin, token_file, command)
    if version:
        show_version(context)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
@growing()
def up(
    context: typer.Context,
    listen: Annotated[str | None, typer.Option("--listen", help="HOST:PORT (port 0 picks one) or unix:PATH.")] = None,
    task: Annotated[list[Path] | None, typer.Option("--task", help="Task file (TOML); may be repeated.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Hub id or folder: makes a task with defaults.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Title of that task, and of a new federation.")] = None,
    base: Annotated[Path | None, typer.Option("--base", help="Local copy of the base model.")] = None,
    advertise: Annotated[str | None, typer.Option("--advertise", help="HOST[:PORT] that invites name.")] = None,
    allow_trusted: Annotated[
        bool, typer.Option("--allow-trusted", help="A new federation may have tasks whose every update it sees.")
    ] = False,
    authority: Annotated[
        Path | None, typer.Option("--authority", help="Card of an authority that lives apart; first start only.")
    ] = None,
    cert: Cert = None,
    key: Key = None,
    host: Annotated[str | None, typer.Option("--host", hidden=True)] = None,
    port: Annotated[int | None, typer.Option("--port", hidden=True)] = None,
) -> None:
    """Create what is missing, invite, then serve until Ctrl-C."""
    need_server_extra()
    from fedit_server.authority.home import read_card_file
    from fedit_server.commands.starting import start
    from fedit_server.running.serving import Plan
    from fedit_server.tasks.files import default_task, load_task
    from fedit_server.tasks.retention import load_retention

    given: CommandContext = context.obj
    before = given.config()
    address = listen or (
        f"{host or before.host}:{before.port if port is None else port}" if host or port is not None else None
    )
    config = given.config(
        listen=address,
        advertise=advertise,
        name=None if before.name else name,
        allow_trusted=True if allow_trusted else None,
        cert=cert,
        key=key,
    )
    tasks, kept = [], {}
    for path in task or []:
        tasks.append(loaded := load_task(path))
        if (rules := load_retention(path)) is not None:
            kept[loaded.id] = rules
    if model is not None:
        tasks.append(default_task(model, name))
    configure_logs(as_json=False, quiet=given.console.quiet, verbose=given.console.verbose)
    card = read_card_file(authority) if authority else None
    plan = Plan(config, tasks, base, retention=kept, card=card)
    raise typer.Exit(asyncio.run(start(plan, given.console)))


@app.command()
@growing()
def serve(
    context: typer.Context,
    listen: Annotated[str | None, typer.Option("--listen", help="HOST:PORT or unix:PATH.")] = None,
    advertise: Annotated[str | None, typer.Option("--advertise", help="HOST[:PORT] that invites name.")] = None,
    cert: Cert = None,
    key: Key = None,
    init: Annotated[bool, typer.Option("--init", help="Set up what is missing: keys, authority, database.")] = False,
) -> None:
    """Serve only, ask nothing; logs are JSON lines. For systemd and containers."""
    need_server_extra()
    from fedit_server.commands.starting import start
    from fedit_server.running.serving import Plan

    given: CommandContext = context.obj
    config = given.config(listen=listen, advertise=advertise, cert=cert, key=key)
    configure_logs(as_json=True, quiet=given.console.quiet, verbose=given.console.verbose)
    raise typer.Exit(asyncio.run(start(Plan(config, create=init, by_hand=False), given.console)))


@app.command()
def status(context: typer.Context) -> None:
    """Show the server, its tasks, the open round and the newest adapter."""
    ask(context, "status", lambda operations: operations.ask("GET", "/status"), status_lines)


app.add_typer(settings.config_app, name="config", help="The settings: show, edit, schema.")
app.add_typer(certificates.cert_app, name="cert", help="The TLS certificate: show, renew, rotate-ca.")
for tell in (
    watching.health,
    watching.metrics,
    watching.grafana,
    access.openapi,
    deploying.systemd,
    deploying.containerfile,
):
    app.command()(tell)
app.command()(care.doctor)
app.command()(care.bugreport)
app.command()(care.completion)
app.command("help")(care.help_page)
app.command("rounds", help="List rounds; short for `round list`.")(commands.rounds)


@app.command()
def paths(context: typer.Context) -> None:
    """Say what lies where."""
    from fedit_server.home.folder import Home

    found = Home(context.obj.config().home).paths()
    context.obj.console.answer("paths", found, [f"{name:<11} {path}" for name, path in found.items()])


@app.command("version")
def show_version(context: typer.Context) -> None:
    """Show the versions of program and protocol."""
    from importlib.metadata import PackageNotFoundError, version

    from fedit_protocol.version import FIRST_VERSION, PROTOCOL_NAME, PROTOCOL_VERSION

    try:
        program = version("fedit")
    except PackageNotFoundError:
        program = "unknown"
    spoken = f"{PROTOCOL_NAME} {PROTOCOL_VERSION[0]}.{PROTOCOL_VERSION[1]}"
    data = {"version": program, "protocol": spoken, "oldest_client": "{}.{}".format(*FIRST_VERSION)}
    oldest = f"takes clients of {PROTOCOL_NAME} {data['oldest_client']} and later"
    context.obj.console.answer("version", data, [f"{PROGRAM} {program} ({spoken})", oldest])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit status."""
    answer_shells()
    words = lift_global_options(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words))


def run(words: Sequence[str]) -> int:
    """Run a command; every FeditError becomes a message and its exit status."""
    console = Console("--json" in words, "-q" in words or "--quiet" in words, "-v" in words or "--verbose" in words)
    command = command_of(words)
    try:
        status = typer.main.get_command(app).main(list(words), prog_name=PROGRAM, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except typer.Abort:
        return 130
    except typer.TyperException as error:
        told = error.format_message()
        if "Usage:" in told:  # a group without its command: the message is the help text
            typer.echo(told)
        else:
            context = getattr(error, "ctx", None)  # of the innermost command that was understood
            understood = PROGRAM if context is None else context.command_path
            console.fail(command, ConfigError(_sentence(told), code="U001", fix=f"{understood} --help"))
        return 2
    except FeditError as error:
        console.fail(command, error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last line of defence: a bug is told as one, its traceback only with -v
        console.fail(
            command, FeditError(f"a bug in fedit-server: {type(error).__name__}: {error}", fix="run it again with -v")
        )
        if console.verbose:
            raise
        return 1


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
