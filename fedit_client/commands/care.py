"""`fedit-client doctor`, `bugreport`, `completion`, `version` and `help`: about the program itself."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import Globals
from fedit_protocol.errors import ConfigError


def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what is safe: permissions, what crashes left.")] = False,
    server: Annotated[str | None, typer.Option(metavar="URL", help="With --network: look at this server.")] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Also ask server and hub; sends nothing of yours.")
    ] = False,
) -> None:
    """Say what stands in the way here, the worst first. Each comes with the command that helps."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.doctor import examine

    given: Globals = context.obj
    found = run_async(examine(given.home, lambda: given.config(server=server), fix=fix, online=network))
    given.console.answer("doctor", found.as_data(), found.lines(), found.trouble)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def bugreport(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(metavar="FILE.zip", help="Where to; else the current folder.")] = None,
) -> None:
    """Write what helps to find a bug, redacted, into a zip here. It is shown first, and sent by nobody but you."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.doctor import examine
    from fedit_client.doctor.bugreport import bug_report
    from fedit_client.network.patience import utc_now

    given: Globals = context.obj
    loaded, now = given.loaded(), utc_now()
    report = bug_report(loaded, run_async(examine(given.home, lambda: loaded.config)), now)
    for line in report.lines():
        given.console.say(line)
    target = out or Path.cwd() / f"fedit-bugreport-{now:%Y%m%d-%H%M%S}.zip"
    if given.console.interactive and not given.console.confirm(f"Write this to {target}?", flag="--yes"):
        raise ConfigError("nothing was written", code="U002", fix="fedit-client bugreport --yes", again="--yes")
    report.write(target)
    lines = [f"{target} holds exactly the above; read it once more before you send it to anybody"]
    given.console.answer("bugreport", {"file": str(target), "contents": report.files, "sent": False}, lines)


def completion(
    context: typer.Context, shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], typer.Argument()]
) -> None:
    """Print the script that completes commands in your shell. It says itself where to put it."""
    from fedit_client.commands.shell_completion import HOW, completion_script

    given: Globals = context.obj
    script = completion_script(shell)
    given.console.answer("completion", {"shell": shell, "script": script}, [*script.splitlines(), f"# {HOW[shell]}"])


def version(context: typer.Context) -> None:
    """Show the version of FedIT and of the protocol it speaks."""
    from fedit_client.installed import installed_version
    from fedit_protocol.version import PROTOCOL_NAME, PROTOCOL_VERSION

    given: Globals = context.obj
    spoken = f"{PROTOCOL_NAME} {PROTOCOL_VERSION[0]}.{PROTOCOL_VERSION[1]}"
    found = {"fedit": installed_version(), "protocol": spoken, "python": sys.version.split()[0]}
    given.console.answer("version", found, [f"fedit {found['fedit']} · {spoken} · Python {found['python']}"])


def help_page(
    context: typer.Context, topic: Annotated[str, typer.Argument(help="An error code such as D014, or a topic.")] = ""
) -> None:
    """Explain an error code or a topic, offline."""
    from fedit_client.help_pages import help_lines

    given: Globals = context.obj
    lines = help_lines(topic)
    given.console.answer("help", {"topic": topic, "text": "\n".join(lines)}, lines)
