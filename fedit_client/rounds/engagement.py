"""What a device brings to every round: its work, its identity, and how it talks to server and owner."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from fedit_client.adapters.kept import AdapterShelf
from fedit_client.consent.agreements import ConsentWatch
from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.manners.awake import Awake
from fedit_client.manners.gate import Gate
from fedit_client.membership.key_log import LogWatch
from fedit_client.network.patience import Clock, Emit, Patience, telling
from fedit_client.network.transport import OnBytes, Transport
from fedit_client.records.journal import Journal
from fedit_client.records.outbox import Outbox
from fedit_client.records.round_notes import TakesNotes
from fedit_client.training import PauseSignal, Trainer
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.limits import Limits
from fedit_protocol.signing import SigningKey
from fedit_protocol.task import TaskDocument


@dataclass(frozen=True)
class LocalWork:
    """What this device brings to every round of a task; none of it leaves."""

    base: Path
    records: tuple[Record, ...] = field(repr=False)
    plan: DevicePlan
    split_seed: bytes = field(repr=False)
    trainer: Trainer
    pause: PauseSignal = field(default_factory=PauseSignal, repr=False)
    """Set by whoever watches the owner's rules; training waits for it between two steps."""
    reread: Callable[[], tuple[Record, ...]] | None = field(default=None, repr=False)
    """Reads the rows as they are now, for each round; without it, and if it fails, those of the start are used."""
    own: Path | None = None
    """Where a method keeps what never leaves this device from one round to the next; None where nothing is kept."""
    round_s: Callable[[Sequence[Record]], float | None] | None = field(default=lambda _: None, repr=False)
    """Returns how long a round of rows takes here, if known; None where this device declares nothing of itself."""
    steps_in_time: Callable[[Sequence[Record]], int] = field(default=lambda _: 0, repr=False)
    """Returns how many steps of such rows fit into a round's time, 0 if all do."""


@dataclass(frozen=True)
class Engagement:
    """What every round of this device has in common."""

    key: SigningKey
    descriptor: FederationDescriptor
    document: TaskDocument
    limits: Limits
    transport: Transport
    journal: Journal
    log: LogWatch
    shelf: AdapterShelf
    work: LocalWork
    patience: Patience
    gate: Gate = field(default_factory=Gate)
    """Whether this device may begin or go on; open, unless somebody keeps it."""

    awake: Awake = nullcontext
    """Held while training."""

    consent: ConsentWatch | None = None
    """Looked at before each check-in, after training and before each upload; None where no yes can be taken back."""

    outbox: Outbox | None = None
    """The owner's copy of what is uploaded; None where the owner wants none."""

    notes: TakesNotes | None = None
    """The signed history of this device; None where nothing is kept."""

    def check_consent(self) -> None:
        """Raise ConsentError A005 if the owner took the yes back."""
        if self.consent is not None:
            self.consent.check()

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        """Send a payload unless the owner took the yes back meanwhile (ConsentError A005); return the receipt."""
        await asyncio.to_thread(self.check_consent)
        return await self.transport.upload(path, header, payload, on_bytes)

    async def note_receipt(self, sha256: str) -> None:
        """Note in the outbox that the server has an upload; a damaged outbox is told, for the upload is made."""
        if self.outbox is not None:
            with telling(self.emit, "the outbox could not note a receipt"):
                await asyncio.to_thread(self.outbox.note_receipt, sha256)

    @property
    def emit(self) -> Emit:
        """Where events go."""
        return self.patience.emit

    @property
    def clock(self) -> Clock:
        """The time of this session."""
        return self.patience.clock
