"""The server's facts of one masked sum: who takes part, who uploaded, who survived, who answered."""

from dataclasses import dataclass, field

from fedit_protocol.encoding import hash_parts
from fedit_protocol.messages import RingSpec, SecondInput


@dataclass
class SumState:
    """Filled by journal records only (`RoundState.apply`); envelopes are kept as received."""

    index: int
    ring: RingSpec
    context: bytes
    """ctx_j of this sum."""
    participants: tuple[int, ...]
    """Roster indices: U2 for the first sum, its survivors for the second."""
    uploads: dict[int, bytes] = field(default_factory=dict)
    """Member → the signed header of its stored upload."""
    survivors: tuple[int, ...] = ()
    confirmations: dict[int, bytes] = field(default_factory=dict)
    answers: dict[int, bytes] = field(default_factory=dict)
    shares: dict[int, dict[int, bytes]] = field(default_factory=dict, repr=False)
    """Participant → holder → a returned share that is the one which was dealt (S6)."""
    documents: dict[str, bytes] = field(default_factory=dict)
    """What was published of this sum: `survivors`, `confirmations`."""

    def __post_init__(self) -> None:
        self.shares = {dealer: {} for dealer in self.participants}

    @property
    def dropouts(self) -> tuple[int, ...]:
        """Participants without an upload, once the survivors are fixed."""
        return tuple(member for member in self.participants if member not in self.survivors)


def second_public_input(second: SecondInput) -> bytes:
    """Return what ctx_2 is bound to besides its participants: both blobs, by digest (SPEC, section 4)."""
    return hash_parts("second", second.result, second.input)
