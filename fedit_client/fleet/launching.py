"""From what a person asked for to a running fleet, and to its results folder."""

import asyncio
import json
import shutil
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from fedit_client.adapters.kept import newest_adapter
from fedit_client.base.model import licence_of, resolve_base
from fedit_client.config import ClientConfig, load_config
from fedit_client.data import Source
from fedit_client.fleet.availability import parse_availability
from fedit_client.fleet.baselines import Baselines, check_measurable, plain_document
from fedit_client.fleet.dropouts import SEALED_STEPS, STEPS, Dropouts
from fedit_client.fleet.member import Connect, World
from fedit_client.fleet.own_server import OwnServer, asks_for_trust, own_server, reports_more, task_text
from fedit_client.fleet.places import OpenPlaces, TrainingPlaces, own_places
from fedit_client.fleet.population import CLIENTS, MANIFEST, PARTITION, deal, is_dealt, population
from fedit_client.fleet.report import round_words, write_report, write_versions
from fedit_client.fleet.runner import Fleet, not_open, task_state
from fedit_client.fleet.settings import LOCAL, SETTINGS_FILE, FleetSettings
from fedit_client.fleet.shelf import SharedShelf
from fedit_client.fleet.speeds import parse_speeds
from fedit_client.fleet.stalls import MASKED, SEALED
from fedit_client.fleet.tally import Tally, read_rounds
from fedit_client.home.durable import make_private, translating, write_atomic
from fedit_client.home.lock import held_alone
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership
from fedit_client.membership.offers import TaskOffer, fetch_task
from fedit_client.membership.trust import ServerAddress, recognise
from fedit_client.rounds.preparation import find_base
from fedit_client.training.turns import FairTurns
from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import FeditError, FleetError
from fedit_protocol.signing import SigningKey
from fedit_protocol.task import Mode
from fedit_protocol.task_selection import least_free
from fedit_protocol.words import counted

TASK: Final = "task.toml"
_LOCK: Final = "fleet.lock"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Launch:
    """One start of a fleet. `server` is where it is this time: an invite, an address, `local`, or None to go on where
    it was; `agree` is asked for a yes to the task of a server that is not the fleet's own."""

    settings: FleetSettings
    folder: Path
    source: Source
    config: ClientConfig = field(default_factory=load_config)
    server: str | None = None
    task: Path | None = None
    resume: bool = False
    say: Say = lambda _: None
    told: Callable[[dict[str, Any]], None] = lambda _: None
    agree: Callable[[TaskOffer], None] = lambda _: None
    places: OpenPlaces | None = None
    """Another way to train, instead of processes of this machine."""


async def launch(wanted: Launch) -> dict[str, Any]:
    """Run a fleet to its end and return its summary; a fleet that was killed goes on where it was.

    Raises FleetError F001 to F016, and what partitioning, joining, training and rounds raise.
    """
    check_measurable(wanted.settings)
    parse_availability(wanted.settings.availability)
    parse_speeds(wanted.settings.speeds)
    _check_folder(wanted)
    folder = make_private(wanted.folder)
    with held_alone(folder / _LOCK):
        settings = await asyncio.to_thread(_begun, wanted)
        wanted = replace(wanted, settings=settings)
        try:
            manifest = json.loads((folder / PARTITION / MANIFEST).read_text("utf-8"))
            clients = await asyncio.to_thread(population, manifest, settings, folder)
            out = await _run(wanted, clients)
        except FeditError:
            if not wanted.resume and not (folder / CLIENTS).exists():
                await asyncio.to_thread(_empty, folder)
            raise
        finally:
            rounds = read_rounds(folder)
        summary = await asyncio.to_thread(write_report, folder, rounds, settings, out)
    newest = newest_adapter(folder / "adapters", _task_id(folder)) if (folder / "adapters").is_dir() else None
    return {**summary, "folder": str(folder), "adapter": str(newest[1]) if newest else None}


def _check_folder(wanted: Launch) -> None:
    """Raise FleetError F004 for a folder with a fleet in it, unless that goes on, or with something else in it."""
    inside = [path for path in wanted.folder.iterdir() if path.name != _LOCK] if wanted.folder.is_dir() else []
    if wanted.resume or not inside:
        return
    if (wanted.folder / SETTINGS_FILE).exists():
        raise FleetError("a fleet was begun in this folder", code="F004", where=str(wanted.folder),
                         fix="fedit-client fleet --resume --out FOLDER", again="--resume")  # fmt: skip
    raise FleetError("the folder is not empty, and nothing is overwritten", code="F004", where=str(wanted.folder),
                     fix="fedit-client fleet --out NEW_FOLDER", again="--out NEW_FOLDER")  # fmt: skip


def _empty(folder: Path) -> None:
    """Remove what a refused start has written into a folder that was empty: nothing is in the way of the next one."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink()


def _begun(wanted: Launch) -> FleetSettings:
    """Write what decides the fleet, and return its settings: what is refused leaves nothing in the folder."""
    settings, folder = wanted.settings, wanted.folder
    own_task = settings.server == LOCAL and not (folder / TASK).exists()
    text = task_text(settings, wanted.task) if own_task else ""
    if not is_dealt(folder):
        deal(wanted.source, settings, folder)
        wanted.say(f"{settings.data} is dealt to {settings.clients} clients: {settings.partition}")
    if text:
        write_atomic(folder / TASK, text.encode())
    if not (folder / SETTINGS_FILE).exists():
        settings = replace(settings, began_at=round(time.time(), 3))
    settings.save(folder)
    write_versions(folder)
    return settings


async def _run(wanted: Launch, clients: Any) -> dict[str, str]:
    settings, folder = wanted.settings, wanted.folder
    async with AsyncExitStack() as stack:
        server, base, address = await _server(stack, wanted)
        if server is not None and server.trusted:
            wanted.say("trusted mode: this server sees every single update, which is fine: all clients are yours")
            wanted = replace(wanted, config=_trusting(wanted.config))
        if server is not None and wanted.resume and (ended := await server.abort_open_rounds()):
            wanted.say(f"{ended} open round of the killed fleet is aborted: its clients' keys are gone")
        federation = await recognise(address)
        offer = await fetch_task(federation, address, None, wanted.config.limits)
        connect = _connect(address, offer)
        async with connect(None) as transport:
            state = await task_state(transport, offer.document)
        if state not in {TaskState.ACTIVE, TaskState.FINISHED}:
            raise not_open(offer.document, state)
        if server is None:
            _tell_of_others(wanted, offer)
            wanted.agree(offer)
            _check_one_task(folder, offer)
        if settings.baselines:
            plain_document(offer.document)
        training = await stack.enter_async_context(await _places(wanted, offer, base))
        trusted = offer.document.task.round.mode is Mode.TRUSTED
        report = server.report if server is not None and reports_more(offer.document.task) else None
        stages = SEALED if trusted else MASKED
        tally = Tally(folder, _telling(wanted, offer), stages=stages, servers_report=report)
        world = World(
            offer=offer,
            address=address,
            connect=connect,
            config=wanted.config,
            turns=FairTurns(training.places),
            base=training.base,
            plan=training.plan,
            shelf=SharedShelf(folder / "adapters", offer.document,
                              licence_of(offer.document.task.base.model, training.base)),
            tally=tally,
            seed=settings.seed,
            dropouts=Dropouts(settings.seed, settings.dropout, SEALED_STEPS if trusted else STEPS),
            availability=parse_availability(settings.availability),
            began_at=settings.began_at,
        )  # fmt: skip
        own_rounds = settings.rounds if server is None else 0
        left = own_rounds - _committed(folder) if own_rounds else None
        fleet = Fleet(clients, world, wanted.say, server.end_stage if server else None, left)
        try:
            if left is None or left > 0:
                await fleet.run()
        finally:
            tally.close()
            await tally.complete()
        beside = Baselines(offer.document, settings, folder, training, say=wanted.say)
        await beside.train(clients, _committed(folder))
    if settings.baselines:
        await beside.measure(clients)  # with nothing else in memory
    return {name: str(error) for name, error in fleet.out.items()}


async def _server(stack: AsyncExitStack, wanted: Launch) -> tuple[OwnServer | None, Path | None, ServerAddress]:
    """Start the fleet's own server, or find the address of another one."""
    settings, folder = wanted.settings, wanted.folder
    if settings.server != LOCAL:
        return None, None, _address(wanted)
    task = folder / TASK
    with translating(task):
        stated = tomllib.loads(task.read_text("utf-8"))
    base = await _base_of(stated, wanted) if wanted.places is None else None
    own = own_server(folder, task, base, settings.clients, trusted=asks_for_trust(stated))
    server = await stack.enter_async_context(own)
    wanted.say("the fleet's own server is up, on this machine only")
    return server, base, ServerAddress.parse(server.invite)


def _trusting(config: ClientConfig) -> ClientConfig:
    """Return the settings with trusted mode allowed: of clients whose server is their owner's as well."""
    modes = tuple(dict.fromkeys((*config.limits.modes, Mode.TRUSTED)))
    return config.model_copy(update={"limits": config.limits.model_copy(update={"modes": modes})})


async def _base_of(task: dict[str, Any], wanted: Launch) -> Path:
    stated = task["base"]
    return await asyncio.to_thread(
        resolve_base, stated["model"], stated.get("revision", ""), wanted.config.paths.cache,
        most_bytes=wanted.config.limits.max_base_bytes, say=wanted.say,
    )  # fmt: skip


def _address(wanted: Launch) -> ServerAddress:
    """The address that was given, else, once clients have enrolled, the one that this fleet was begun with."""
    enrolled = (Paths.under(home).membership_file for home in sorted((wanted.folder / CLIENTS).glob("*")))
    if wanted.server is not None or any(load_membership(file) is not None for file in enrolled):
        address = ServerAddress.parse(wanted.server or wanted.settings.server)
        return replace(address, no_proxy=wanted.config.network.no_proxy)
    raise FleetError("no client of this fleet has enrolled yet, so its server must be named once more", code="F005",
                     fix="fedit-client fleet --resume --out FOLDER --server 'LINK'")  # fmt: skip


def _connect(address: ServerAddress, offer: TaskOffer) -> Connect:
    """Return what makes a client's transport; all of them share one TLS context."""
    tls, federation_id = offer.federation.tls(), offer.federation.descriptor.federation_id

    def connect(key: SigningKey | None) -> Any:
        return address.transport(tls, None if key is None else (key, federation_id))

    return connect


def _check_one_task(folder: Path, offer: TaskOffer) -> None:
    """Keep the task with the results; raises FleetError F008 if the server's is another one than this fleet's."""
    file = folder / "task.cbor"
    if not file.exists():
        import tomlkit

        said = offer.document.task.model_dump(mode="json", exclude_none=True)
        write_atomic(folder / TASK, tomlkit.dumps(said).encode())
        write_atomic(file, offer.raw)
    elif file.read_bytes() != offer.raw:
        raise FleetError("the server's task is another one than this fleet has agreed to", code="F008",
                         where=str(file), fix="fedit-client fleet --out NEW_FOLDER",
                         again="--out NEW_FOLDER")  # fmt: skip


async def _places(wanted: Launch, offer: TaskOffer, base: Path | None) -> Any:
    if wanted.places is not None:
        return wanted.places(offer)
    model = wanted.settings.model or wanted.config.model
    found = base or await find_base(offer.document, model, wanted.config.paths.cache, wanted.config.limits, wanted.say)
    return own_places(offer, wanted.config, wanted.settings, wanted.say, found)


def _tell_of_others(wanted: Launch, offer: TaskOffer) -> None:
    """Say that a round needs more than this fleet: at a server for others too it may begin at any time, so it waits."""
    needed, clients = least_free(offer.document.task), wanted.settings.clients
    if needed > clients:
        wanted.say(f"a round of this task begins with {needed} devices; this fleet has {clients} and waits until "
                   f"{counted(needed - clients, 'device')} of other people {'is' if needed - clients == 1 else 'are'} "
                   f"free too, or: --clients {needed}")  # fmt: skip


def _telling(wanted: Launch, offer: TaskOffer) -> Callable[[dict[str, Any]], None]:
    rounds = wanted.settings.rounds or offer.document.task.round.rounds

    def tell(line: dict[str, Any]) -> None:
        wanted.say(round_words(line, rounds))
        wanted.told(line)

    return tell


def _committed(folder: Path) -> int:
    return sum(line["outcome"] == "committed" for line in read_rounds(folder))


def _task_id(folder: Path) -> Any:
    return next((path.name for path in sorted((folder / "adapters").iterdir()) if path.is_dir()), "")


@asynccontextmanager
async def given_places(training: TrainingPlaces) -> AsyncIterator[TrainingPlaces]:
    """Places that need no opening, as a program's own or a test's."""
    yield training
