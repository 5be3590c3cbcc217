"""One virtual client: the real client's session in a home of its own, over a given transport and a given trainer."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fedit_client.config import ClientConfig
from fedit_client.data import Record
from fedit_client.events import Event, EventKind
from fedit_client.fleet.availability import Availability
from fedit_client.fleet.chance import secret_of
from fedit_client.fleet.dropouts import Dropouts, FallingSilent, VanishedError
from fedit_client.fleet.ranks import rank_of
from fedit_client.fleet.shelf import SharedShelf
from fedit_client.fleet.tally import Tally, train_s
from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.history import MachineHistory
from fedit_client.home.key_ring import KeyStore
from fedit_client.installed import installed_version
from fedit_client.manners.gate import Gate
from fedit_client.manners.rules import Hold, Verdict
from fedit_client.membership.enrollment import enroll
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.membership.joined import Membership, keep_in_membership, load_membership
from fedit_client.membership.key_log import LogWatch
from fedit_client.membership.offers import TaskOffer
from fedit_client.membership.renewal import HeldCertificate
from fedit_client.membership.succession import PinnedDescriptor
from fedit_client.membership.trust import ServerAddress
from fedit_client.network.metering import MeteredTransport, Traffic
from fedit_client.network.patience import Patience
from fedit_client.network.transport import Transport, jittered
from fedit_client.records.journal import Journal
from fedit_client.records.round_notes import RoundFacts, Seen
from fedit_client.rounds.declaring import own_pace
from fedit_client.rounds.engagement import Engagement, LocalWork
from fedit_client.session import Session
from fedit_client.training import LocalResult, OnProgress, Trainer, TrainingRequest
from fedit_client.training.descent import Descent
from fedit_client.training.request import MeasuresStart, ScoresCanary
from fedit_client.training.turns import FairTurns
from fedit_protocol.errors import FleetError
from fedit_protocol.signing import SigningKey

Connect = Callable[[SigningKey | None], AbstractAsyncContextManager[Transport]]
"""Makes the transport of one client; without a key, one that says nothing about who sends."""

_COMES_BACK_S: Final = 1.0
_ROUND_AT_MOST_S: Final = 60.0
_SERVER_AWAY_S: Final = 5.0
_OFFLINE: Final = "availability"


@dataclass(frozen=True)
class VirtualClient:
    """One device of a simulation: its number from 0, its rows, and how much slower than this machine it is."""

    number: int
    name: str
    records: tuple[Record, ...] = field(repr=False)
    home: Path
    slowdown: float = 1.0


@dataclass(frozen=True)
class World:
    """What all virtual clients of a fleet have in common: one federation and task, one base, one seed, one tally."""

    offer: TaskOffer
    address: ServerAddress
    connect: Connect
    config: ClientConfig
    """The owner's settings; each client has them in a home of its own."""
    turns: FairTurns
    base: Path
    plan: DevicePlan
    shelf: SharedShelf
    tally: Tally
    seed: int
    dropouts: Dropouts
    availability: Availability
    began_at: float
    """When the fleet began for the first time, in seconds since 1970."""


class Member:
    """Enrols one virtual client and lets it live until the task is over; it vanishes and comes back as drawn."""

    def __init__(self, client: VirtualClient, world: World, on_event: Callable[[Event], None] = lambda _: None) -> None:
        """Read nothing yet."""
        self.client, self._world, self._on_event = client, world, on_event
        self._config = world.config.model_copy(update={"home": client.home})
        self._paths, self._gate = self._config.paths, Gate()
        self._shelf, self._round_no = world.shelf.for_client(), 0
        self._wire: FallingSilent | None = None

    async def enrol(self) -> None:
        """Redeem the fleet's invite, unless this client belongs to the federation already.

        Raises FleetError F008 if its home belongs to another federation, and what enrolling raises.
        """
        world, offer = self._world, self._world.offer
        before = load_membership(self._paths.membership_file)
        if before is not None:
            if before.federation.descriptor.federation_id != offer.federation.descriptor.federation_id:
                raise FleetError("this fleet belongs to another federation", code="F008", where=str(self.client.home),
                                 fix="fedit-client fleet --out NEW_FOLDER", again="--out NEW_FOLDER")  # fmt: skip
            return
        if world.address.code is None:
            raise FleetError(f"{self.client.name} has no certificate yet, and the address carries no invite code",
                             code="F005", fix="fedit-client fleet --server 'LINK', with an invite")  # fmt: skip
        key = load_or_create_identity(self._paths.identity_file, KeyStore.FILE)
        async with world.connect(None) as transport:
            code, name = world.address.code, self.client.name
            found = await enroll(transport, offer.federation.descriptor, key, code, name, lambda: int(time.time()))
        Membership(
            host=world.address.host,
            port=world.address.port,
            pinned_by=offer.federation.pinned_by,
            descriptor=offer.federation.raw,
            certificate=found.certificate,
            log_head=found.log_head,
            label=self.client.name,
            consent=offer.summary.label,
            document=offer.raw,
            model=str(world.base),
            joined_at=int(time.time()),
        ).save(self._paths.membership_file)

    async def live(self, max_rounds: int | None = None) -> int:
        """Take part until the task is over, or `max_rounds` were committed; return how many were."""
        committed = 0
        coming = asyncio.create_task(self._come_and_go())
        try:
            while True:
                left = None if max_rounds is None else max_rounds - committed
                try:
                    return committed + await self._stay(left)
                except VanishedError:
                    await self._world.tally.until_over(self._round_no, _ROUND_AT_MOST_S)
                    # Once more in a round that it was never seen in: not at once, or it would ask for ever.
                    await asyncio.sleep(jittered(_COMES_BACK_S))
                    if self._gate.finishing:
                        return committed
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    def finish(self) -> None:
        """Let the client end once its round is over, also if it is offline."""
        self._gate.set(Verdict((Hold(_OFFLINE, "the fleet ends"),)) if self._gate.hold else Verdict(), finishing=True)

    async def _come_and_go(self) -> None:
        """Close the gate while the client is offline."""
        world, number = self._world, self.client.number
        while True:
            now = time.time()
            at_s = now - world.began_at
            until = world.began_at + world.availability.until_s(world.seed, number, at_s)
            online = world.availability.online(world.seed, number, at_s)
            back = None if math.isinf(until) else datetime.fromtimestamp(until, UTC)
            held = () if online else (Hold(_OFFLINE, "this virtual client is offline", back),)
            if not self._gate.finishing:
                self._gate.set(Verdict(held))
            if math.isinf(until):
                return
            await asyncio.sleep(max(until - now, 0.001))

    async def _stay(self, max_rounds: int | None) -> int:
        """One life of the client: from its start to the end of the task, or to where it vanishes."""
        membership = load_membership(self._paths.membership_file)
        if membership is None:
            raise RuntimeError("a virtual client is enrolled before it lives")
        world, key = self._world, load_or_create_identity(self._paths.identity_file, KeyStore.FILE)
        federation = membership.federation
        document, trainer = membership.task_document, _Trainer(self)
        rank = rank_of(world.seed, self.client.number, document.task.adapter.ranks, world.plan.rank)
        plan = replace(world.plan, threads=1, rank=rank)
        round_s, steps_in_time = own_pace(self._config, document, plan)
        async with world.connect(key) as inner:
            metered = MeteredTransport(inner)
            self._wire = FallingSilent(metered, self._passed)
            seed = secret_of(world.seed, "held out", self.client.number)
            engagement = Engagement(
                key=key,
                descriptor=federation.descriptor,
                document=document,
                limits=self._config.limits,
                transport=self._wire,
                journal=Journal(self._paths.journal),
                log=LogWatch(self._paths.state / "log.json", federation.descriptor, membership.log_head),
                shelf=self._shelf,
                work=LocalWork(
                    *(world.base, self.client.records, plan, seed, trainer, self._gate.pause),
                    own=self._paths.state / "own",
                    round_s=round_s,
                    steps_in_time=steps_in_time,
                ),
                patience=Patience(self._hear, max_wait_s=_SERVER_AWAY_S),
                gate=self._gate,
                notes=_Notes(self, metered),
            )
            file = self._paths.membership_file
            held = HeldCertificate(key, federation.descriptor, membership.certificate,
                                   lambda raw: keep_in_membership(file, certificate=raw))  # fmt: skip
            pinned = PinnedDescriptor(membership.descriptor, lambda raw: keep_in_membership(file, descriptor=raw))
            session = Session(engagement, held, pinned, world.plan.kind, installed_version())
            return await session.run(max_rounds)

    def _hear(self, event: Event) -> None:
        if event.kind is EventKind.ROUND_OPENED and event.round_no is not None and self._wire is not None:
            self._round_no = event.round_no
            self._wire.leave_before = self._world.dropouts.step(self.client.number, event.round_no)
            self._world.tally.began(event.round_no, self.client.number)
        self._on_event(event)

    def _passed(self, step: str) -> None:
        self._world.tally.stalls.passed(self._round_no, self.client.number, step)

    async def trained(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train in turn with the other clients, as slowly as this client is; or vanish where that was drawn."""
        if self._wire is not None:
            self._wire.vanish_at("training")
        world, number = self._world, self._round_no
        seed = secret_of(world.seed, "training", self.client.number, number)
        turn = world.turns.for_client(self.client.name)
        result = await turn.train(replace(request, seed=seed), on_progress)
        world.tally.trained(number, result)
        taken = slowed(result, self.client.slowdown)
        # What this client has shown: it declares its next round by that, as a device does.
        await asyncio.to_thread(Descent(MachineHistory(self._paths.machine_file)).done, request, taken)
        await asyncio.sleep(taken.seconds - taken.seconds / self.client.slowdown)
        return result

    @property
    def scores_canary(self) -> bool:
        """As the shared trainers have it."""
        return self._world.turns.scores_canary

    @property
    def measures_start(self) -> bool:
        """As the shared trainers have it."""
        return self._world.turns.measures_start

    def round_ended(self, facts: RoundFacts, traffic: Traffic) -> None:
        """Tell the tally how a round has ended for this client."""
        gone = self._wire is not None and self._wire.gone
        step = self._wire.leave_before if gone and self._wire is not None else None
        self._world.tally.ended(self.client.number, facts, traffic, step)


def slowed(result: LocalResult, slowdown: float) -> LocalResult:
    """Return a result as a device that is so many times slower would have it: the same update, in more time."""
    seconds, speed = max(result.seconds, train_s(result)), result.tokens_per_second
    return replace(result, seconds=slowdown * seconds, tokens_per_second=speed / slowdown)


class _Trainer(Trainer, ScoresCanary, MeasuresStart):
    """What a session sees of the shared trainers."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def scores_canary(self) -> bool:
        """As the shared trainers have it."""
        return self._member.scores_canary

    @property
    def measures_start(self) -> bool:
        """As the shared trainers have it."""
        return self._member.measures_start

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train as this client does."""
        return await self._member.trained(request, on_progress)


class _Notes:
    """Passes on how a client's rounds end, with the bytes that went meanwhile."""

    def __init__(self, member: Member, metered: MeteredTransport) -> None:
        self._member, self._metered = member, metered
        self._before = Traffic()

    def begin(self, now: datetime) -> None:
        """Count from here."""
        self._before = self._metered.traffic

    def catch_up(self, journal: Journal, now: datetime, uploads: tuple[str, ...]) -> None:
        """Nothing: the tally of a fleet that was killed has lost its open round."""

    def write(self, facts: RoundFacts, seen: Seen) -> None:
        """Tell the tally."""
        self._member.round_ended(facts, self._metered.traffic.since(self._before))
