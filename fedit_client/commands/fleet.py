"""`fedit-client fleet`: many virtual clients on this machine, or on several, against a real server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_client.commands.shared import AsShape, DeviceOption, Globals, Maps, Model, OnErrorOption, sources_of
from fedit_protocol.errors import ConsentError, FleetError

if TYPE_CHECKING:
    from fedit_client.console import Console
    from fedit_client.fleet.settings import FleetSettings
    from fedit_client.membership.offers import TaskOffer


def fleet(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option(help="Invite link or address; or local: start a server of the fleet's own.")
    ] = None,
    clients: Annotated[int | None, typer.Option(min=1, max=100_000, help="Virtual clients.")] = None,
    data: Annotated[str | None, typer.Option(help="One data set: file, folder, glob or org/name[:split].")] = None,
    maps: Maps = None,
    as_shape: AsShape = None,
    on_error: OnErrorOption = "stop",
    partition: Annotated[
        str | None, typer.Option(help="How rows are dealt (help partition); dirichlet:0.5 if not said.")
    ] = None,
    test_rows: Annotated[int | None, typer.Option(min=0, help="Rows of each category that no client gets; 10.")] = None,
    task: Annotated[Path | None, typer.Option(help="Task file, for a server of the fleet's own.")] = None,
    model: Model = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="End after so many committed rounds.")] = None,
    cohort: Annotated[int | None, typer.Option(min=3, max=128, help="Clients of a round, own server only.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of partition, speeds, dropouts, training; 0.")] = None,
    dropout: Annotated[
        float | None, typer.Option(min=0.0, max=0.9, help="Probability that a client vanishes in a round.")
    ] = None,
    availability: Annotated[
        str | None, typer.Option(help="always, diurnal[:PERIOD_S[:SHARE]] or bernoulli:SHARE[:SLOT_S].")
    ] = None,
    speeds: Annotated[str | None, typer.Option(help="same, or lognormal:SIGMA times slower than here.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Training processes, each with a base of its own; 1.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each training process.")] = None,
    device: DeviceOption = None,
    ray: Annotated[bool | None, typer.Option("--ray", help="Train through Ray (RAY_ADDRESS names a cluster).")] = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; ./fleet if not said.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the fleet of the results folder.")] = False,
) -> None:
    """Run many virtual clients against a real server: one base in memory, adapters swapped, results in a folder."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.data import Source
    from fedit_client.fleet.launching import Launch, launch
    from fedit_client.fleet.settings import LOCAL, FleetSettings

    given: Globals = context.obj
    folder = (out or Path("fleet")).absolute()
    config = given.config()
    asked = {
        "server": server,
        "clients": clients,
        "data": data,
        "partition": partition,
        "test_rows": test_rows,
        "model": model,
        "rounds": rounds,
        "cohort": cohort,
        "seed": seed,
        "dropout": dropout,
        "availability": availability,
        "speeds": speeds,
        "processes": processes,
        "threads": threads,
        "device": device,
        "ray": ray,
    }
    stated: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    place = server or (None if resume else config.server)
    if resume:
        settings = FleetSettings.load(folder).going_on(stated)
    else:
        _check_complete(place, data, clients)
        settings = FleetSettings(**{**stated, "server": LOCAL if place == LOCAL else _shown(place or "")})
    sources = sources_of([settings.data], maps, as_shape, on_error)
    wanted = Launch(
        settings=settings,
        folder=folder,
        config=config,
        source=sources[0].absolute() if sources else Source(settings.data),
        server=None if place == LOCAL else place,
        task=task,
        resume=resume,
        say=given.console.say,
        told=lambda line: given.console.event({"kind": "fleet-round", **line}) if given.console.json else None,
        agree=lambda offer: _agree(given.console, offer, settings),
    )
    try:
        summary = run_async(launch(wanted))
    except KeyboardInterrupt:
        given.console.say(f"stopped; fedit-client fleet --resume --out {folder} goes on")
        raise
    given.console.answer("fleet", summary, [f"{folder}: {summary['rounds']} rounds, report.md, rounds.jsonl, plots"])


def _check_complete(server: str | None, data: str | None, clients: int | None) -> None:
    missing = [
        name for name, value in (("--server", server), ("--data", data), ("--clients", clients)) if value is None
    ]
    if missing:
        example = "--server local --clients 100 --partition dirichlet:0.5 --data rows.jsonl"
        raise FleetError(f"a fleet needs {' and '.join(missing)}", code="F013", fix=f"fedit-client fleet {example}",
                         again=example)  # fmt: skip


def _shown(server: str) -> str:
    """The address without its invite code, which is a secret."""
    from fedit_client.membership.trust import ServerAddress

    address = ServerAddress.parse(server)
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"https://{host}:{address.port}" + (f"#{address.pin}" if address.pin else "")


def _agree(console: "Console", offer: "TaskOffer", settings: "FleetSettings") -> None:
    """Show the task of another's server, and ask once for all virtual clients."""
    for line in offer.summary.lines():
        console.say(f"  {line}")
    question = f"Take part with {settings.clients} virtual clients, on your rows ({settings.data})?"
    if not console.confirm(question, flag="--yes"):
        raise ConsentError("nobody has agreed, so nothing was enrolled", code="A002",
                           fix="fedit-client fleet, and answer yes")  # fmt: skip
