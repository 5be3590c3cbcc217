"""`fedit-client chat` and `eval`: what came of it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import (
    DeviceOption,
    Globals,
    Model,
    OnErrorOption,
    Threads,
    client_of,
    device_flags,
)


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
    config = given.config(model=model, device=device_flags(device, threads))
    adapter = client_of(config).latest_adapter()
    run_async(talk(config, given.console, adapter, prompt, beside=compare == "base"))


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
    config = given.config(model=model, device=device_flags(device, threads))
    try:
        found = run_async(compare(config, given.console, EvaluationWishes(server, tuple(data or ()), on_error, watch)))
    except KeyboardInterrupt:
        given.console.say("stopped; reports that were sent stay with the server")
        raise
    given.console.answer("eval", {"evaluations": found}, [])
