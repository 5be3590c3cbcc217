"""The SDK: `Client` joins a federation, trains on its owner's rows, and yields typed events. It owns no process:

no prints, no log handlers, no signal handlers, no changes to the environment; cancel it at any time.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Self

from fedit_client.adapters.kept import AdapterShelf, newest_adapter, own_folder
from fedit_client.base.model import licence_of
from fedit_client.config import ClientConfig, load_config
from fedit_client.consent.agreements import Agreements, ConsentWatch, renewed
from fedit_client.consent.terms import Consent, check_consent, summarise
from fedit_client.data import Record
from fedit_client.data.own import OwnData, TakesData
from fedit_client.events import Event, EventKind
from fedit_client.hardware.device import DevicePlan, Machine
from fedit_client.hardware.fit import Fit
from fedit_client.hardware.history import MachineHistory
from fedit_client.home.lock import held_alone
from fedit_client.home.paths import app_home
from fedit_client.installed import installed_version
from fedit_client.manners.awake import awake_if
from fedit_client.manners.facts import FactSource
from fedit_client.manners.keeper import Keeper
from fedit_client.manners.steering import TakesWishes
from fedit_client.membership.admission import Admission
from fedit_client.membership.identity import held_out_seed, load_identity, load_or_create_identity
from fedit_client.membership.joined import (
    Membership,
    keep_in_membership,
    load_membership,
    require_membership,
    rewriting,
)
from fedit_client.membership.key_log import LogWatch
from fedit_client.membership.leaving import LeaveReceipt, LeaveWishes, depart
from fedit_client.membership.offers import TaskOffer, fetch_task
from fedit_client.membership.renewal import HeldCertificate
from fedit_client.membership.succession import PinnedDescriptor
from fedit_client.membership.trust import Federation, ServerAddress, recognise
from fedit_client.migrations.steps import open_home
from fedit_client.network.bandwidth import Bandwidth
from fedit_client.network.metering import MeteredTransport
from fedit_client.network.patience import Emit, Patience
from fedit_client.network.transport import HttpTransport
from fedit_client.records.contacts import SERVER, Contacts, note_server
from fedit_client.records.history import History
from fedit_client.records.journal import Journal
from fedit_client.records.outbox import outbox_of
from fedit_client.records.round_notes import RoundNotes
from fedit_client.rounds.declaring import own_pace
from fedit_client.rounds.engagement import Engagement, LocalWork
from fedit_client.rounds.preparation import (
    Preparation,
    check_training_stack,
    cpu_needs_a_yes,
    device_kind,
    may_use_cpu,
    unplanned,
)
from fedit_client.rounds.rehearsal import DryRun, rehearse
from fedit_client.running.attendance import attended, ended, keep_to_rules
from fedit_client.session import Session
from fedit_client.training import Trainer, WorkerTrainer
from fedit_client.training.place import sweep
from fedit_protocol.errors import ConfigError
from fedit_protocol.task import TaskDocument

Say = Callable[[str], None]


class Client(TakesData, TakesWishes):
    """One device in one federation. Use as `async with Client.open(invite) as client`."""

    def __init__(self, config: ClientConfig, address: ServerAddress | None, trainer: Trainer | None) -> None:
        """Use `open`; this takes what it has worked out."""
        self._config, self._paths = config, config.paths
        self._address = replace(address, no_proxy=config.network.no_proxy) if address else None
        self._trainer = trainer
        self._offer: TaskOffer | None = None
        self._data, self._bandwidth = OwnData(self._paths), Bandwidth.of(config.polite)
        self._facts: FactSource | None = None
        self._running: asyncio.Task[int] | None = None
        self._planned: DevicePlan | None = None

    @classmethod
    def open(
        cls,
        server: str | None = None,
        *,
        app: str | None = None,
        data_dir: Path | None = None,
        home: Path | None = None,
        config: ClientConfig | None = None,
        trainer: Trainer | None = None,
        pin: str | None = None,
        code: str | None = None,
    ) -> Self:
        """Return a client for an invite link or https:// address, or for what its home has joined already.

        A program that embeds it names itself with `app` and gets a home of its own, in the folder `fedit` of `data_dir`
        or among the platform's; `home` is a folder as `fedit-client --home` takes it, `config` says everything.
        With a `trainer` of its own the embedding program decides how to train, and no base model is looked for: a
        request's `base` is then `config.model`, or the current folder. Raises ConfigError; nothing is sent or written.
        """
        settings = config or load_config(home or app_home(app, data_dir))
        text = server or settings.server
        return cls(settings, ServerAddress.parse(text, pin, code) if text else None, trainer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop a run that is still going; it leaves its round."""
        await ended(self._running)

    @property
    def membership(self) -> Membership | None:
        """What this device has joined, or None."""
        return load_membership(self._paths.membership_file)

    def require_membership(self) -> Membership:
        """Return what this device has joined; raises MembershipError J001."""
        return require_membership(self._paths.membership_file)

    async def fetch_offer(self, task: str | None = None) -> TaskOffer:
        """Fetch the task and hold it against the owner's limits; nothing about this device is sent.

        `task` chooses where a server has several. Raises SecurityError T001 to T003, TaskRefusedError, TransportError.
        """
        federation, address = await self._recognise()
        self._offer = await fetch_task(federation, address, task, self._config.limits)
        return self._offer

    def check_admission(self, offer: TaskOffer) -> None:
        """Raise what stands against joining and is known without a word to the server.

        MembershipError J002: this device belongs to another federation; ConfigError U005: there is no invite code.
        """
        before = self.membership
        Admission(self._config, self._address_of(before), offer.federation, before).check()

    async def fit(self, offer: TaskOffer, records: Iterable[Record] = ()) -> Fit | None:
        """Return what the task means for this machine and rows: memory, disk, minutes, MB. Nothing is fetched.

        None with a trainer of one's own. Raises DeviceError H002, H003.
        """
        if self._trainer is not None:
            return None
        ready = Preparation(self._config, offer.document, self.membership)
        return await asyncio.to_thread(lambda: ready.fit(Machine.here(), records))

    async def prepare(self, offer: TaskOffer, say: Say = lambda _: None) -> tuple[DevicePlan, Path]:
        """Return how and on which base folder the task will be trained here; may download the base.

        Raises DeviceError, ModelError. `join` does not need it, but its owner may want to know before a yes.
        """
        return await self._prepared(offer.document, self.membership, say)

    @property
    def config(self) -> ClientConfig:
        """The settings that this client goes by."""
        return self._config

    def use_python(self, python: Path) -> None:
        """Train with another interpreter, such as the one that `fedit-client setup` has made."""
        device = self._config.device.model_copy(update={"python": python})
        self._config = self._config.model_copy(update={"device": device})

    def use_cpu(self) -> None:
        """Train on the CPU although there is a GPU: the owner's yes, remembered by `join`."""
        device = self._config.device.model_copy(update={"prefer": "cpu"})
        self._config = self._config.model_copy(update={"device": device})

    async def join(self, *, consent: Consent, label: str = "", say: Say = lambda _: None) -> Membership:
        """Enrol this device and remember what was agreed to; joining again renews the consent and the data.

        `say` is told if an enrolment authority that lives apart has to be waited for. Raises ConsentError A003,
        MembershipError J002, SecurityError T004 to T007, TransportError (N012: it did not answer in time).
        """
        offer = self._offer or await self.fetch_offer()
        check_consent(offer.summary, consent)
        open_home(self._paths)
        before = self.membership
        address = self._address_of(before)
        credential = await Admission(self._config, address, offer.federation, before).credential(label, say)
        membership = Membership(
            host=address.host,
            port=address.port,
            pinned_by=offer.federation.pinned_by,
            descriptor=offer.federation.raw,
            certificate=credential.certificate,
            log_head=credential.log_head,
            label=label or (before.label if before else ""),
            consent=consent.label,
            document=offer.raw,
            model=self._config.model or (before.model if before else None),
            device=self._config.device.prefer,
            threads=self._config.device.threads,
            **Preparation.seen(self._planned, before),
            joined_at=before.joined_at if before else _now_s(),
        )
        self._data.remember()
        with rewriting(self._paths.membership_file):
            membership.save(self._paths.membership_file)
        note_server(self._paths.cache, address.host, address.port)
        Agreements(self._paths.consents).agree(membership, offer.summary, "join", installed_version())
        return membership

    def agree(self, offer: TaskOffer, consent: Consent) -> Membership:
        """Renew the yes of a device that has joined, to another version of its task; rows, device and identity stay.

        A running client goes on by itself. Raises MembershipError J001, ConsentError A003.
        """
        open_home(self._paths)
        check_consent(offer.summary, consent)
        with rewriting(self._paths.membership_file):
            membership = renewed(self.require_membership(), offer.raw, consent)
            Agreements(self._paths.consents).agree(membership, offer.summary, "diff", installed_version())
            membership.save(self._paths.membership_file)
        return membership

    async def run(
        self,
        max_rounds: int | None = None,
        on_event: Callable[[Event], None] | None = None,
        *,
        wait_for_consent: bool = False,
        until: datetime | None = None,
        wait: bool = True,
    ) -> AsyncGenerator[Event, None]:
        """Take part in rounds and yield what happens, until `max_rounds` are committed or the task ends.

        Closing the iterator or cancelling leaves the round: the server is told. `on_event` is called with each event
        as it happens, from the event loop. Raises what `Session.run` raises; with `wait_for_consent` a changed task is
        no error: nothing is trained until there is a yes to it (`agree`, also from another process). From `until` on
        no further round begins. Without `wait` a rule of `[polite]`, or a pause, is PausedError P001 at the start.
        """
        membership = self.require_membership()
        queue: asyncio.Queue[Event | None] = asyncio.Queue()

        def emit(event: Event) -> None:
            if on_event:
                on_event(event)
            queue.put_nowait(event)

        with (
            held_alone(self._paths.lock_file),
            attended(self._config, membership.consent, emit, self._facts, until) as keeper,
        ):
            watch = ConsentWatch(self._paths) if wait_for_consent else None
            self._running = asyncio.create_task(keep_to_rules(keeper, self._stay, membership, max_rounds, watch, wait))
            self._running.add_done_callback(lambda _: queue.put_nowait(None))
            try:
                while (event := await queue.get()) is not None:
                    yield event
                await self._running
            finally:
                await ended(self._running)

    async def run_to_end(self, max_rounds: int | None = None, on_event: Callable[[Event], None] | None = None) -> None:
        """Like `run`, for programs that want the callback only."""
        async with aclosing(self.run(max_rounds, on_event)) as events:
            async for _ in events:
                pass

    def latest_adapter(self) -> Path | None:
        """Return the newest global adapter on this device, a PEFT folder, or None."""
        membership = self.require_membership()
        newest = newest_adapter(self._paths.adapters, membership.task_document.task.id)
        return newest[1] if newest else None

    async def leave(self, *, erase: bool = False, offline: bool = False, new_key: bool = False) -> LeaveReceipt:
        """Deregister this device, forget the membership, return a receipt; adapters stay unless `erase`.

        `new_key` removes the identity too: the server revokes it, and the next `join` makes another (ADR 0021).
        `offline` does not tell the server, for one that is gone; not with `new_key`: the old key would stay good.
        Past sums cannot be undone. Raises what `leaving.depart` raises.
        """
        return await depart(self._paths, self._signing_transport, LeaveWishes(erase, offline, new_key))

    async def _stay(self, membership: Membership, max_rounds: int | None, emit: Emit, keeper: Keeper) -> int:
        document, federation = membership.task_document, membership.federation
        watch = ConsentWatch(self._paths)
        watch.check()
        # The limits may have become stricter since the owner agreed.
        summarise(document, federation.descriptor, self._config.limits)
        key = load_or_create_identity(self._paths.identity_file)
        chosen, base = await self._prepared(document, membership, lambda text: emit(Event(EventKind.NOTICE, text)))
        if not may_use_cpu(chosen, await asyncio.to_thread(Machine.here), membership):
            raise cpu_needs_a_yes(chosen)
        records = await asyncio.to_thread(self._data.records)
        keeper.follow(self._bandwidth.follow)
        keeper.use(chosen.device, chosen.name, chosen.total_bytes)
        await asyncio.to_thread(sweep, self._paths.checkpoints)
        trainer, seed, reread = self._trainer or self._worker_trainer(), held_out_seed(key), self._data.records
        own, pace = own_folder(self._paths.adapters, document.task.id), own_pace(self._config, document, chosen)
        work = LocalWork(base, records, chosen, seed, trainer, keeper.gate.pause, reread, own, *pace)
        async with self._signing_transport(membership) as transport:
            contacts, where = Contacts(self._paths.contacts_file), f"{membership.host}:{membership.port}"
            metered = MeteredTransport(transport, lambda: contacts.note(where, SERVER))
            engagement = Engagement(
                key=key,
                descriptor=federation.descriptor,
                document=document,
                limits=self._config.limits,
                transport=metered,
                journal=Journal(self._journal_folder(membership)),
                log=self._log_watch(membership),
                shelf=AdapterShelf(self._paths.adapters, document, licence_of(document.task.base.model, base)),
                work=work,
                patience=Patience(emit, max_wait_s=self._config.network.max_wait_s),
                gate=keeper.gate,
                awake=awake_if(self._config.polite.keep_awake),
                consent=watch,
                outbox=outbox_of(self._config, membership),
                notes=RoundNotes(History(self._paths.history, key), membership, metered),
            )
            held = HeldCertificate(key, federation.descriptor, membership.certificate, self._save_certificate)
            file = self._paths.membership_file
            pinned = PinnedDescriptor(membership.descriptor, lambda raw: keep_in_membership(file, descriptor=raw))
            session = Session(engagement, held, pinned, device_kind(Machine.here()), installed_version())
            return await session.run(max_rounds)

    def _worker_trainer(self) -> WorkerTrainer:
        history, low = MachineHistory(self._paths.machine_file), self._config.polite.process_priority == "low"
        return WorkerTrainer(self._paths.checkpoints, history=history, give_way=low)

    async def dry_run(self, offer: TaskOffer | None = None, say: Say = lambda _: None) -> DryRun:
        """Train one round's work and build its upload, and send nothing: of the joined task, or of an offer.

        It starts at the newest adapter that is on this device, else at version 0, which the task defines. Raises what
        preparing and training raise.
        """
        membership = None if offer else self.require_membership()
        document = offer.document if offer else self.require_membership().task_document
        chosen, base = await self._prepared(document, membership, say)
        if chosen.needs_cpu_consent:
            raise cpu_needs_a_yes(chosen)
        key = load_identity(self._paths.identity_file)
        seed = held_out_seed(key) if key else secrets.token_bytes(32)
        records = await asyncio.to_thread(self._data.records)
        work = LocalWork(base, records, chosen, seed, self._trainer or self._worker_trainer())
        return await rehearse(document, work, self._config, say)

    def _log_watch(self, membership: Membership) -> LogWatch:
        # Kept when a membership ends: whoever joins the same federation again still knows its log.
        descriptor = membership.federation.descriptor
        return LogWatch(self._paths.key_log / f"{descriptor.federation_id}.json", descriptor, membership.log_head)

    def _save_certificate(self, certificate: bytes) -> None:
        keep_in_membership(self._paths.membership_file, certificate=certificate)

    def _signing_transport(self, membership: Membership) -> HttpTransport:
        signer = (load_or_create_identity(self._paths.identity_file), membership.federation.descriptor.federation_id)
        tls, direct = membership.federation.tls(), self._config.network.no_proxy
        return HttpTransport(membership.host, membership.port, tls, signer, self._bandwidth, direct)

    async def _recognise(self) -> tuple[Federation, ServerAddress]:
        membership = self.membership if self._address is None else None
        address = self._address_of(membership)
        return membership.federation if membership else await recognise(address), address

    def _address_of(self, membership: Membership | None) -> ServerAddress:
        if self._address is not None:
            return self._address
        if membership is None:
            raise ConfigError("no server is named", code="U002", fix="fedit-client join --server 'fedit://…'",
                              again="--server 'fedit://…'")  # fmt: skip
        return membership.address(self._config.network.no_proxy)

    async def _prepared(
        self, document: TaskDocument, membership: Membership | None, say: Say
    ) -> tuple[DevicePlan, Path]:
        """Settings of this run come before what was said when joining."""
        model = self._config.model or (membership.model if membership else None)
        if self._trainer is not None:
            return unplanned(document, self._config.device), Path(model or ".")
        check_training_stack(self._config.device)
        ready = Preparation(self._config, document, membership)
        chosen = ready.plan(await asyncio.to_thread(Machine.here))
        self._planned = chosen
        return chosen, await ready.base(say, self._recognise)

    def _journal_folder(self, membership: Membership) -> Path:
        # Round numbers count per task of one federation; another one starts again at 1.
        return self._paths.journal / membership.federation.descriptor.federation_id / membership.task_document.task.id


def _now_s() -> int:
    return int(time.time())
