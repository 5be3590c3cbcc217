"""`fedit-client ui`: the local page."""

from typing import Annotated

import typer

from fedit_client.commands.shared import Globals


def ui(
    context: typer.Context,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="A port of this machine; else 7717, or a free one.")
    ] = None,
) -> None:
    """Show all of this, and a chat, on a page in your browser. It is for this machine only, and there until Ctrl-C."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.page.serving import serve

    given: Globals = context.obj

    def say(address: str) -> None:
        if given.console.json:
            given.console.event({"kind": "serving", "text": address})
        else:
            given.console.out.print(address)
        given.console.say(
            "this machine only; the address opens once, in one browser; Ctrl-C ends the page", style="dim"
        )

    run_async(serve(given.config(), port, say, browser=not no_browser and not given.console.no_input))
