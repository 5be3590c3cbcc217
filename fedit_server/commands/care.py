"""`fedit-server doctor`, `bugreport`, `help` and `completion`: about the program itself."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedit_server.commands.context import CommandContext, need_server_extra


def doctor(context: typer.Context) -> None:
    """Say what stands in the way of this server, the worst first, each with the command that helps."""
    need_server_extra()
    from fedit_server.doctor.checkup import examine

    given: CommandContext = context.obj
    found = asyncio.run(examine(given.config))
    given.console.answer("doctor", found.as_data(), found.lines(), found.trouble)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def bugreport(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(metavar="FILE.zip", help="Where to; else the current folder.")] = None,
) -> None:
    """Show what helps to find a bug, redacted, and write it into a zip here. Nothing is sent: that is up to you."""
    need_server_extra()
    from fedit_server.clock import utc_now
    from fedit_server.doctor.bugreport import bug_report
    from fedit_server.doctor.checkup import examine

    given: CommandContext = context.obj
    config, now = given.config(), utc_now()

    async def gather() -> "tuple[dict[str, str], list[str]]":
        report = await bug_report(config, await examine(lambda: config), now)
        report.write(target)
        return report.files, report.lines()

    target = out or Path.cwd() / f"fedit-server-bugreport-{now:%Y%m%d-%H%M%S}.zip"
    files, lines = asyncio.run(gather())
    lines = [*lines, f"{target} holds exactly the above; read it once more before you send it to anybody"]
    given.console.answer("bugreport", {"file": str(target), "contents": files, "sent": False}, lines)


def completion(
    context: typer.Context, shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], typer.Argument()]
) -> None:
    """Print the script that lets a shell complete commands and options; it says itself where to put it."""
    from fedit_server.commands.shell_completion import HOW, completion_script

    given: CommandContext = context.obj
    script = completion_script(shell)
    given.console.answer("completion", {"shell": shell, "script": script}, [*script.splitlines(), f"# {HOW[shell]}"])


def help_page(
    context: typer.Context, topic: Annotated[str, typer.Argument(help="An error code such as C017, or a topic.")] = ""
) -> None:
    """Explain an error code or a topic, offline."""
    from fedit_server.help_pages import help_lines

    given: CommandContext = context.obj
    lines = help_lines(topic)
    given.console.answer("help", {"topic": topic, "text": "\n".join(lines)}, lines)
