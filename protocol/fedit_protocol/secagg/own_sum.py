"""A participant's side of one masked sum: its context, its frozen upload, and what it must see before it gives shares.

Checks carry the ids of SPEC, section 8 (C9, C13 to C17); the machine that calls them is `participant`.
"""

import hashlib
from dataclasses import dataclass, field

from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import Confirm, Confirmations, RingSpec, Sharers, Survivors, UploadHeader
from fedit_protocol.secagg.blocks import check_holders
from fedit_protocol.secagg.effects import Effects
from fedit_protocol.secagg.keys import SumSecrets, pairwise_seed, self_mask_seed
from fedit_protocol.secagg.masking import Mask, pair_sign
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.thresholds import confirmation_quorum
from fedit_protocol.signing import Kind, read_envelope, unseal, verified


@dataclass
class OwnSum:
    """One sum as one device sees it; `frozen` guards that its masks cover one update only (C11)."""

    index: int
    ring: RingSpec
    context: bytes
    participants: tuple[int, ...]
    least_survivors: int
    frozen: bool = False
    header: bytes = b""
    receipt: bytes = b""
    asked: bytes = b""
    """The one survivor set that was ever accepted, as received (C16)."""
    alive: frozenset[int] = frozenset()
    reply: Effects = field(default=(), repr=False)
    """What was said to it; the same question gets the same answer."""

    def masks(self, roster: VerifiedRoster, own: IdentityKey, secrets: SumSecrets) -> list[Mask]:
        """Return the self mask and one pairwise mask per other participant."""
        masks = [Mask(self_mask_seed(secrets.self_mask, self.context, own), +1)]
        for index in self.participants:
            peer = roster.keys(index, self.index)
            if peer.identity != own:
                seed = pairwise_seed(secrets.mask_key, peer.mask_public, self.context, own, peer.identity)
                masks.append(Mask(seed, pair_sign(own, peer.identity)))
        return masks

    def check_survivors(self, message: Survivors, roster: VerifiedRoster, own: int) -> frozenset[int]:
        """Return U3 after C13 to C15, C21: inside the participants, large enough, honest about us, with evidence."""
        alive = [survivor.member for survivor in message.survivors]
        if message.sum_index != self.index or alive != sorted(set(alive)) or not set(alive) <= set(self.participants):
            raise _refused("the survivors are not a sorted subset of the sharers")
        if len(alive) < self.least_survivors:
            raise _refused(f"{len(alive)} survivors are too few to hide among")
        if self.receipt and own not in alive:  # C14
            raise _refused("the server holds this device's upload but calls it lost")
        for survivor in message.survivors:  # C15: under our context, so a header from another view does not verify
            signer = roster.members[survivor.member].identity
            header = unseal(survivor.header, Kind.UPLOAD, self.context, UploadHeader, signer=signer)
            if header.sum_index != self.index or header.length != payload_length(self.ring):
                raise _refused("a survivor's header is for something else")
        check_holders(self.ring, roster, self.participants, alive)
        return frozenset(alive)

    def check_confirmations(self, message: Confirmations, roster: VerifiedRoster) -> None:
        """Refuse shares unless a quorum of the roster has signed the very U3 that we were shown (C17)."""
        shown = survivors_hash(self.asked)
        signers = set()
        for received in message.confirmations:
            envelope = read_envelope(received, Kind.CONFIRM)
            roster.index(IdentityKey(envelope.signer))
            confirm = verified(envelope, self.context, Confirm)
            if confirm.survivors != shown or confirm.sum_index != self.index:
                raise _refused("a member has confirmed another set of survivors than this device was shown")
            signers.add(envelope.signer)
        quorum = confirmation_quorum(len(roster.members), roster.thresholds.corrupt)
        if message.sum_index != self.index or len(signers) < quorum:
            raise _refused(f"{len(signers)} members confirmed the survivors, {quorum} are needed")


def check_sharers(message: Sharers, roster: VerifiedRoster, own: int) -> None:
    """Raise SecurityError unless U2 is sorted, of members, large enough, and has this device in it (C9)."""
    members = message.members
    if list(members) != sorted(set(members)) or any(member >= len(roster.members) for member in members):
        raise _refused("the set of sharers is not sorted, or names a stranger")
    if own not in members:
        raise _refused("this device shared its keys but is not among the sharers")
    if len(members) < roster.thresholds.min_survivors:
        raise _refused(f"{len(members)} sharers are fewer than {roster.thresholds.min_survivors}")


def survivors_hash(envelope: bytes) -> bytes:
    """Return what a confirmation signs: SHA-256 of the body of a Survivors envelope."""
    return hashlib.sha256(read_envelope(envelope, Kind.SURVIVORS).body).digest()


def _refused(message: str) -> SecurityError:
    return SecurityError(ProblemType.SURVIVORS_REFUSED, message)
