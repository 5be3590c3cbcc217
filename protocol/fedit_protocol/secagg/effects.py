"""What a machine wants done. A driver carries out effects in order; each Persist is durable before any later Send.

The machines do no I/O: they return effects, and the drivers (`session`, `coordinator`) own disk, network and threads.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedit_protocol.encoding import Message
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import IdentityKey
from fedit_protocol.signing import Kind

if TYPE_CHECKING:
    from fedit_protocol.sealed.opening import OpenedSum
    from fedit_protocol.secagg.quantize import Aggregate
    from fedit_protocol.secagg.unmask import UnmaskJob


class Record(Message):
    """One line of a round's journal: what happened, and the received bytes that prove it."""

    kind: str
    body: bytes


@dataclass(frozen=True)
class Persist:
    """Write this record and make it durable (fsync) before the next effect."""

    record: Record
    payload: bytes | None = field(default=None, repr=False)
    """Bulk bytes that belong to the record (a masked upload), to be stored beside it."""


@dataclass(frozen=True)
class Send:
    """Send this envelope to the server; `payload` is the raw body of an upload."""

    kind: Kind
    envelope: bytes
    payload: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Compute:
    """Run this job in a thread and hand its result back through `Aggregator.on_sum`."""

    job: "UnmaskJob"


@dataclass(frozen=True)
class Derive:
    """Work out the second sum's public input from the first, in a thread, and hand it to `Aggregator.on_second_input`.

    If there is nothing to gain, or it cannot be done: `Aggregator.give_up_second`.
    """

    aggregate: "Aggregate"


@dataclass(frozen=True)
class Finish:
    """The round has its aggregate, and the second one if two were offered and both came about."""

    aggregate: "Aggregate"
    second: "Aggregate | None" = None
    note: str = ""
    """Why a second sum that was offered is not there."""


@dataclass(frozen=True)
class Opened:
    """The trusted round has the sum of its updates."""

    result: "OpenedSum"


@dataclass(frozen=True)
class Fail:
    """The round is over without a result; nothing of it will be unmasked, ever."""

    problem: ProblemType
    reason: str
    blamed: tuple[IdentityKey, ...] = ()
    """The devices whose signed messages made it fail."""


Effect = Persist | Send | Compute | Derive | Finish | Opened | Fail
Effects = tuple[Effect, ...]
