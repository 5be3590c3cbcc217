"""`fedit-client fleet`: many virtual clients on this machine, or on several, against a real server."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_client.commands.shared import AsShape, DeviceOption, Globals, Maps, Model, OnErrorOption, sources_of
from fedit_protocol.errors import ConsentError, FleetError

if TYPE_CHECKING:
    from fedit_client.console import Console
    from fedit_client.fleet.launching import Launch
    from fedit_client.fleet.settings import FleetSettings
    from fedit_client.membership.offers import TaskOffer


Server = Annotated[
    str | None, typer.Option(help="Invite link or address; or local: start a server of the fleet's own.")
]
Clients = Annotated[int | None, typer.Option(min=1, max=100_000, help="Virtual clients.")]
Data = Annotated[str | None, typer.Option(help="One data set: file, folder, glob or org/name[:split].")]
Partition = Annotated[str | None, typer.Option(help="How rows are dealt (help partition); dirichlet:0.5 if not said.")]
TestRows = Annotated[int | None, typer.Option(min=0, help="Rows of each category that no client gets; 10.")]
TaskFile = Annotated[Path | None, typer.Option(help="Task file, for a server of the fleet's own.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="End after so many committed rounds.")]
Cohort = Annotated[int | None, typer.Option(min=3, max=128, help="Clients of a round, own server only.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of partition, speeds, dropouts, training; 0.")]
Dropout = Annotated[float | None, typer.Option(min=0.0, max=0.9, help="Probability that a client vanishes in a round.")]
Availability = Annotated[
    str | None, typer.Option(help="always, diurnal[:PERIOD_S[:SHARE]] or bernoulli:SHARE[:SLOT_S].")
]
Speeds = Annotated[str | None, typer.Option(help="same, or lognormal:SIGMA times slower than here.")]
Processes = Annotated[
    int | None, typer.Option(min=1, max=64, help="Training processes, each with a base of its own; 1.")
]
EachThreads = Annotated[int | None, typer.Option(min=1, help="CPU threads of each training process.")]
ThroughRay = Annotated[bool | None, typer.Option("--ray", help="Train through Ray (RAY_ADDRESS names a cluster).")]
Beside = Annotated[str | None, typer.Option(help="Set beside it, on test rows: local, central, or local,central.")]
Seeds = Annotated[int | None, typer.Option(min=1, max=100, help="Fleets, each with a seed of its own, from --seed on.")]
Out = Annotated[Path | None, typer.Option(help="Results folder; ./fleet if not said.")]
GoOn = Annotated[bool, typer.Option("--resume", help="Go on with the fleet of the results folder.")]


def fleet(
    context: typer.Context,
    server: Server = None,
    clients: Clients = None,
    data: Data = None,
    maps: Maps = None,
    as_shape: AsShape = None,
    on_error: OnErrorOption = "stop",
    partition: Partition = None,
    test_rows: TestRows = None,
    task: TaskFile = None,
    model: Model = None,
    rounds: Rounds = None,
    cohort: Cohort = None,
    seed: Seed = None,
    dropout: Dropout = None,
    availability: Availability = None,
    speeds: Speeds = None,
    processes: Processes = None,
    threads: EachThreads = None,
    device: DeviceOption = None,
    ray: ThroughRay = None,
    baselines: Beside = None,
    seeds: Seeds = None,
    out: Out = None,
    resume: GoOn = False,
) -> None:
    """Run many virtual clients against a real server: one base in memory, adapters swapped, results in a folder."""
    from fedit_client.data import Source
    from fedit_client.fleet.launching import Launch
    from fedit_client.fleet.settings import LOCAL, FleetSettings

    given: Globals = context.obj
    folder, config = (out or Path("fleet")).absolute(), given.config()
    asked = {
        "server": server, "clients": clients, "data": data, "partition": partition, "test_rows": test_rows,
        "model": model, "rounds": rounds, "cohort": cohort, "seed": seed, "dropout": dropout,
        "availability": availability, "speeds": speeds, "processes": processes, "threads": threads,
        "device": device, "ray": ray, "baselines": baselines, "seeds": seeds,
    }  # fmt: skip
    stated: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    place = server or (None if resume else config.server)
    if resume:
        settings = FleetSettings.load(folder).going_on(stated)
    else:
        _check_complete(place, data, clients)
        settings = FleetSettings(**{**stated, "server": LOCAL if place == LOCAL else _shown(place or "")})
    sources = sources_of([settings.data], maps, as_shape, on_error)
    source = sources[0].absolute() if sources else Source(settings.data)
    elsewhere = None if place == LOCAL else place
    _run(given, Launch(settings, folder, source, config, server=elsewhere, task=task, resume=resume))


def _run(given: Globals, wanted: "Launch") -> None:
    """Run a fleet to its end, and show what comes of it as it comes."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.fleet.launching import launch
    from fedit_client.fleet.series import launch_series

    console, folder = given.console, wanted.folder
    note_contacts(wanted)
    shown = replace(
        wanted,
        say=console.say,
        told=lambda line: console.event({"kind": "fleet-round", **line}) if console.json else None,
        agree=lambda offer: _agree(console, offer, wanted.settings),
    )
    try:
        summary = run_async(launch(shown) if wanted.settings.seeds == 1 else launch_series(shown))
    except KeyboardInterrupt:
        console.say(f"stopped; fedit-client fleet --resume --out {folder} goes on")
        raise
    console.answer("fleet", summary, [f"{folder}: {summary['rounds']} rounds, report.md, summary.json"])


def note_contacts(wanted: "Launch") -> None:
    """Remember the server elsewhere and the Ray cluster that a fleet talks to, for `explain network`."""
    from fedit_client.fleet.settings import LOCAL
    from fedit_client.membership.trust import ServerAddress
    from fedit_client.records.contacts import note_ray, note_server

    cache, settings = wanted.config.paths.cache, wanted.settings
    if settings.server != LOCAL:
        address = ServerAddress.parse(settings.server)
        note_server(cache, address.host, address.port)
    if settings.ray:
        note_ray(cache)


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
