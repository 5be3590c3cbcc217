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

_EVERYTHING = "Remove identity, adapters, exports, outbox, history, caches, runtime and settings for good?"
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Train and build the upload, and send nothing.")]


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
    dry_run: DryRunOption = False,
) -> None:
    """Join a federation, agree to its task, and take part. It goes on until the task ends or Ctrl-C."""
    from fedit_client.conversations.foreground import Stay, attend, run_async
    from fedit_client.conversations.joining import JoinWishes, rehearse_join
    from fedit_client.conversations.joining import join as lead_through

    given: Globals = context.obj
    if server == "-" and "-" in (data or ()):
        raise ConfigError(
            "one stdin cannot hold both the link and the rows; the link may stand in FEDIT_SERVER",
            code="U001",
            fix="fedit-client join --data rows.jsonl",
            again="--data rows.jsonl",
        )
    config = given.config(server=from_stdin(server), model=model, device=device_flags(device, threads))
    client = client_of(config, pin=pin, code=code)
    wishes = JoinWishes(sources_of(data or (), maps, as_shape, on_error), task, accept, name)
    if dry_run:
        tried = run_async(rehearse_join(client, given.console, wishes))
        given.console.answer("join", {"joined": False, **tried.as_data()}, tried.lines())
        return
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
    wait_for_consent: Annotated[
        bool, typer.Option("--wait-for-consent", help="Wait for a missing yes without a terminal, as a service does.")
    ] = False,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
    dry_run: DryRunOption = False,
) -> None:
    """Take part in rounds until the task ends or Ctrl-C."""
    from fedit_client.conversations.foreground import Stay, attend, run_async

    given: Globals = context.obj
    client = client_of(given.config(model=model, device=device_flags(device, threads)))
    if dry_run:
        tried = run_async(client.dry_run(say=given.console.say))
        given.console.answer("run", tried.as_data(), tried.lines())
        return
    ending = moment(until, "fedit-client run --until 18:30", "--until 18:30")
    attend(client, given.console, Stay(max_rounds, ending, not no_wait, wait_for_consent))
    adapter = client.latest_adapter()
    given.console.answer("run", {"adapter": str(adapter) if adapter else None}, [])


def leave(
    context: typer.Context,
    erase: Annotated[bool, typer.Option("--erase", help="Also remove everything of this program here.")] = False,
    new_key: Annotated[bool, typer.Option("--new-key", help="Also remove identity; the next join makes one.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not tell the server; for one that is gone.")] = False,
) -> None:
    """Leave the federation: the server forgets this device. Adapters stay, unless --erase."""
    from fedit_client.conversations.foreground import run_async

    given: Globals = context.obj
    if erase and not given.console.confirm(_EVERYTHING, flag="--yes"):
        raise ConfigError("nothing was removed", code="U002", fix="fedit-client leave, to keep the adapters")
    receipt = run_async(client_of(given.config()).leave(erase=erase, offline=offline, new_key=new_key))
    given.console.answer("leave", receipt.as_data(), receipt.lines())


def uninstall(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List every path, and change nothing.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not tell the server; for one that is gone.")] = False,
) -> None:
    """Remove everything of this program here but the program itself. List it first with --dry-run."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.conversations.uninstalling import own_service, traces, traces_data, traces_lines
    from fedit_client.service.systems import system_here

    given: Globals = context.obj
    config = given.config()
    service = own_service(config.home, system_here())
    found = traces(config.paths, service)
    if dry_run:
        given.console.answer("uninstall", {"removed": False, **traces_data(found)}, traces_lines(found))
        return
    if not given.console.confirm(_EVERYTHING, flag="--yes"):
        raise ConfigError("nothing was removed", code="U002", fix="fedit-client uninstall --dry-run")
    stopped = [f"the service is stopped and removed: {service.file}"] if service and service.uninstall() else []
    receipt = run_async(client_of(config).leave(erase=True, offline=offline))
    lines = [*stopped, *receipt.lines(), *traces_lines(traces(config.paths, None))]
    given.console.answer("uninstall", {"removed": True, "receipt": receipt.as_data()}, lines)
