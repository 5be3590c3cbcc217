"""`fedit-client join`, `run` and `leave`: in, on, and out."""

from typing import Annotated

import typer

from fedit_client.commands.shared import (
    AsShape,
    DeviceOption,
    Globals,
    Maps,
    MaxRounds,
    Model,
    OnErrorOption,
    Server,
    Threads,
    client_of,
    device_flags,
    from_stdin,
    moment,
    sources_of,
)
from fedit_protocol.errors import ConfigError


def join(
    context: typer.Context,
    server: Server = None,
    pin: Annotated[str | None, typer.Option(help="sha256:… that the server's identity must have.")] = None,
    code: Annotated[str | None, typer.Option(help="Invite code, for an https:// address.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Rows: file, folder, glob, - or org/name[:split]; may be repeated.")
    ] = None,
    maps: Maps = None,
    as_shape: AsShape = None,
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
    from fedit_client.running import Stay, attend, run_async

    given: Globals = context.obj
    config = given.config(server=from_stdin(server), model=model, device=device_flags(device, threads))
    client = client_of(config, pin=pin, code=code)
    wishes = JoinWishes(sources_of(data or (), maps, as_shape, on_error), task, accept, name)
    offer = run_async(lead_through(client, given.console, wishes))
    if not no_run:
        attend(client, given.console, Stay(max_rounds))
    adapter = client.latest_adapter()
    result = {"task": offer.summary.label, "joined": True, "adapter": str(adapter) if adapter else None}
    given.console.answer("join", result, [])


def run(
    context: typer.Context,
    max_rounds: MaxRounds = None,
    until: Annotated[str | None, typer.Option(metavar="[18:30|2h]", help="Begin no round from then on.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Fail (exit 10) if a rule or a pause holds now.")] = False,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
) -> None:
    """Take part in rounds until the task ends or Ctrl-C."""
    from fedit_client.running import Stay, attend

    given: Globals = context.obj
    client = client_of(given.config(model=model, device=device_flags(device, threads)))
    attend(client, given.console, Stay(max_rounds, moment(until, "fedit-client run --until 18:30"), not no_wait))
    adapter = client.latest_adapter()
    given.console.answer("run", {"adapter": str(adapter) if adapter else None}, [])


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
    removed = run_async(client_of(given.config()).leave(erase=erase, offline=offline, new_key=new_key))
    lines = [*(f"removed {path}" for path in removed), "left; sums of past rounds hold your part and cannot be undone"]
    given.console.answer("leave", {"removed": [str(path) for path in removed]}, lines)
