"""`fedit-client doctor`, `version` and `help`: about the program itself."""

import sys
from typing import Annotated

import typer

from fedit_client.commands.shared import Globals


def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what is safe: permissions, what crashes left.")] = False,
    server: Annotated[str | None, typer.Option(metavar="URL", help="With --network: look at this server.")] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Also ask server and hub; sends nothing of yours.")
    ] = False,
) -> None:
    """Say what stands in the way on this machine, the worst first, each with the command that helps."""
    from fedit_client.doctor import examine
    from fedit_client.running import run_async

    given: Globals = context.obj
    found = run_async(examine(given.home, lambda: given.config(server=server), fix=fix, online=network))
    given.console.answer("doctor", found.as_data(), found.lines(), found.trouble)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


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
