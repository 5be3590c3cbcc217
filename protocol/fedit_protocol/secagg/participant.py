"""The client half of a round, as a machine without I/O.

OFFERED       the offer is verified against signature, protocol and the owner's limits.
JOINED        fresh keys are drawn and advertised; training may start.
SHARED        the roster is verified; shares of all secrets are dealt.
ACKNOWLEDGED  the peers' shares are held; those that do not open are complained about.
READY         U2, the set whose masks must cancel, is known.
FROZEN        the update is masked, once; only its bytes may ever be sent.
UPLOADED      the server's receipt is held.
ANSWERED      shares were given for one survivor set; any other set is refused for good.
WIPED         all secrets are gone; nothing more is said.

Checks carry the ids of SPEC, section 8 (C0 to C19). C4, C7, C17 and C18 belong to later sums and modes.
"""

from collections.abc import Callable
from datetime import datetime

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import digest_of
from fedit_protocol.enrollment import FederationDescriptor, check_log_head, federation_context
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.limits import LastSeen, Limits, check_cohort, check_offer
from fedit_protocol.messages import (
    Ack,
    Inbox,
    Join,
    Offer,
    Receipt,
    Roster,
    Sharers,
    Shares,
    Survivors,
    UnmaskAnswer,
    UploadHeader,
)
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.context import offer_context, sum_context
from fedit_protocol.secagg.effects import Effects, Persist, Record, Send
from fedit_protocol.secagg.keys import (
    ShareKey,
    SumSecrets,
    open_share,
    pairwise_seed,
    seal_share,
    self_mask_hash,
    self_mask_seed,
)
from fedit_protocol.secagg.masking import Mask, apply_masks, pair_sign
from fedit_protocol.secagg.quantize import encode_update
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.shamir import split
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK, packed_leaves, unpack_shares
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal


class Participant:
    """One device in one round. Wrong call order raises RuntimeError; a far side that breaks a rule, SecurityError."""

    def __init__(
        self,
        offer: bytes,
        descriptor: FederationDescriptor,
        key: SigningKey,
        limits: Limits,
        now: datetime,
        *,
        last: LastSeen | None = None,
        random: Callable[[int], bytes],
    ) -> None:
        """Verify the signed offer (C1, C2, C3); raises SecurityError or TaskRefusedError.

        `random` returns so many bytes of OS randomness (os.urandom): every secret of the round is drawn from it.
        """
        self._descriptor = descriptor
        self._key = key
        self._limits = limits
        self._random = random
        context = federation_context(descriptor.federation_id)
        self.offer = unseal(offer, Kind.OFFER, context, Offer, signer=descriptor.server_key)
        check_log_head(self.offer.log_head, descriptor)
        check_offer(self.offer, descriptor, limits, last, int(now.timestamp()))
        self._ctx0 = offer_context(read_envelope(offer, Kind.OFFER).body)
        self.stage = ClientStage.OFFERED
        self._share_key: ShareKey | None = None
        self._secrets: tuple[SumSecrets, ...] = ()
        self._join = b""
        self._roster: VerifiedRoster | None = None
        self._index = -1
        self._held: dict[int, bytes] = {}
        self._sharers: tuple[int, ...] = ()
        self._header = b""
        self._receipt = b""
        self._answers: dict[int, tuple[bytes, Effects]] = {}

    @property
    def thresholds(self) -> Thresholds | None:
        """The thresholds of the roster, once it is known."""
        return self._roster.thresholds if self._roster else None

    def join(self) -> Effects:
        """Draw fresh keys and advertise them. The round number is persisted first: it is never joined again."""
        self._expect(ClientStage.OFFERED)
        self._share_key = ShareKey.generate(self._random)
        self._secrets = tuple(SumSecrets.generate(self._random) for _ in self.offer.sums)
        message = Join(
            share_key=self._share_key.public,
            mask_keys=tuple(secrets.mask_key.public for secrets in self._secrets),
            self_mask_hashes=tuple(self_mask_hash(secrets.self_mask) for secrets in self._secrets),
        )
        self._join = seal(self._key, Kind.JOIN, self._ctx0, message)
        self.stage = ClientStage.JOINED
        return (Persist(Record(kind="joined", body=self.offer.round_id.encode())), Send(Kind.JOIN, self._join))

    def on_roster(self, received: bytes, now: datetime) -> Effects:
        """Verify who else takes part (C5, C6, C3) and deal shares of every secret to every member."""
        self._expect(ClientStage.JOINED)
        message = unseal(received, Kind.ROSTER, self._ctx0, Roster, signer=self._descriptor.server_key)
        roster = VerifiedRoster.received(message, self.offer, self._ctx0, self._descriptor, int(now.timestamp()))
        self._index = roster.index(self._key.public)
        if roster.members[self._index].envelope != self._join:
            raise SecurityError(ProblemType.KEY_REFUSED, "the roster lists other keys for this device than it sent")
        check_cohort(roster.thresholds, self._limits)
        self._roster = roster
        shares = self._deal(roster)
        self.stage = ClientStage.SHARED
        return (Send(Kind.SHARES, seal(self._key, Kind.SHARES, roster.context, shares)),)

    def on_inbox(self, received: bytes) -> Effects:
        """Open the peers' shares and acknowledge; a dealer whose share does not open is named (C8)."""
        roster, share_key = self._in_roster(ClientStage.SHARED)
        inbox = unseal(received, Kind.INBOX, roster.context, Inbox, signer=self._descriptor.server_key)
        dealers = [item.dealer for item in inbox.items]
        if dealers != sorted(set(dealers)) or self._index in dealers or any(d >= len(roster.members) for d in dealers):
            raise SecurityError(ProblemType.SURVIVORS_REFUSED, "the inbox names a dealer twice, or a stranger")
        complaints = []
        for item in inbox.items:
            dealer, own = roster.members[item.dealer], self._key.public
            try:
                share = open_share(
                    share_key, dealer.join.share_key, roster.context, dealer.identity, own, item.ciphertext
                )
            except SecurityError:
                complaints.append(item.dealer)
                continue
            if packed_leaves(roster.context, dealer.identity, own, share) != item.leaves:
                complaints.append(item.dealer)
            else:
                self._held[item.dealer] = share
        if complaints and len(complaints) == len(dealers):
            raise SecurityError(
                ProblemType.CONTEXT_MISMATCH, "no peer's share opens: this device was given another round"
            )
        self.stage = ClientStage.ACKNOWLEDGED
        return (Send(Kind.ACK, seal(self._key, Kind.ACK, roster.context, Ack(complaints=tuple(complaints)))),)

    def on_sharers(self, received: bytes) -> Effects:
        """Take U2, the set whose pairwise masks must cancel (C9)."""
        roster, _ = self._in_roster(ClientStage.ACKNOWLEDGED)
        message = unseal(received, Kind.SHARERS, roster.context, Sharers, signer=self._descriptor.server_key)
        members = message.members
        if list(members) != sorted(set(members)) or any(member >= len(roster.members) for member in members):
            raise SecurityError(ProblemType.SURVIVORS_REFUSED, "the set of sharers is not sorted, or names a stranger")
        if self._index not in members:
            raise SecurityError(
                ProblemType.SURVIVORS_REFUSED, "this device shared its keys but is not among the sharers"
            )
        if len(members) < roster.thresholds.min_survivors:
            raise SecurityError(
                ProblemType.SURVIVORS_REFUSED,
                f"{len(members)} sharers are fewer than {roster.thresholds.min_survivors}",
            )
        self._sharers = members
        self.stage = ClientStage.READY
        return ()

    def freeze(self, update: Vector, weight: int, report: ClientReport) -> Effects:
        """Encode and mask the update, once (C10, C11). CPU-bound: call it in a thread.

        The payload is persisted with its signed header before the first byte leaves; any resend uses those bytes.
        """
        roster, _ = self._in_roster(ClientStage.READY)
        self.stage = ClientStage.FROZEN  # first: whatever happens below, these masks serve no second update
        ring = self.offer.sums[0].ring
        words = encode_update(update, weight, report, ring, self._random(32))
        apply_masks(words, self._masks(roster))
        payload = words.tobytes()
        digest = bytes.fromhex(digest_of(payload).removeprefix("sha256:"))
        header = UploadHeader(sum_index=1, length=len(payload), digest=digest)
        self._header = seal(self._key, Kind.UPLOAD, self._sum_context(roster), header)
        return (
            Persist(Record(kind="frozen", body=self._header), payload),
            Send(Kind.UPLOAD, self._header, payload),
        )

    def on_receipt(self, received: bytes) -> Effects:
        """Keep the server's word that the upload is on its disk (C12)."""
        roster, _ = self._in_roster(ClientStage.FROZEN)
        context = self._sum_context(roster)
        receipt = unseal(received, Kind.RECEIPT, context, Receipt, signer=self._descriptor.server_key)
        if f"sha256:{receipt.header.hex()}" != digest_of(self._header):
            raise SecurityError(ProblemType.DIGEST_MISMATCH, "the receipt is for another upload")
        self._receipt = received
        self.stage = ClientStage.UPLOADED
        return (Persist(Record(kind="receipt", body=received)),)

    def on_survivors(self, received: bytes) -> Effects:
        """Answer one survivor set with shares (C13 to C16); the same request again gets the same stored answer."""
        roster, _ = self._in_roster(ClientStage.FROZEN, ClientStage.UPLOADED, ClientStage.ANSWERED)
        context = self._sum_context(roster)
        message = unseal(received, Kind.SURVIVORS, context, Survivors, signer=self._descriptor.server_key)
        if message.sum_index in self._answers:
            asked, stored = self._answers[message.sum_index]
            if asked != received:
                raise SecurityError(ProblemType.SURVIVORS_REFUSED, "the server asks about a second set of survivors")
            return stored
        alive = self._check_survivors(message, roster, context)
        answer = UnmaskAnswer(
            sum_index=message.sum_index,
            shares=tuple(self._share_of(dealer, dealer in alive, message.sum_index) for dealer in self._sharers),
        )
        effects: Effects = (
            Persist(Record(kind="answered", body=received)),
            Send(Kind.UNMASK, seal(self._key, Kind.UNMASK, context, answer)),
        )
        self._answers[message.sum_index] = (received, effects)
        self.stage = ClientStage.ANSWERED
        return effects

    def wipe(self) -> None:
        """Forget every secret of the round (C19); call it at the end, on abort and on deadline."""
        self._share_key = None
        self._secrets = ()
        self._held.clear()
        self._answers.clear()
        self.stage = ClientStage.WIPED

    def _deal(self, roster: VerifiedRoster) -> Shares:
        """Split every secret among all members; the own shares are kept, the others sealed to their holders."""
        share_key = self._round_key()
        dealt = [b""] * len(roster.members)
        for secrets in self._secrets:
            for secret in (secrets.mask_key.secret_bytes(), secrets.self_mask):
                parts = split(secret, roster.thresholds.threshold, len(dealt), self._random)
                dealt = [joined + part for joined, part in zip(dealt, parts, strict=True)]
        own = self._key.public
        self._held[self._index] = dealt[self._index]
        return Shares(
            ciphertexts=tuple(
                seal_share(share_key, member.join.share_key, roster.context, own, member.identity, dealt[holder])
                for holder, member in enumerate(roster.members)
                if holder != self._index
            ),
            leaves=tuple(
                packed_leaves(roster.context, own, member.identity, dealt[holder])
                for holder, member in enumerate(roster.members)
            ),
        )

    def _masks(self, roster: VerifiedRoster) -> list[Mask]:
        """The self mask and one pairwise mask per other sharer."""
        own, secrets, context = self._key.public, self._secrets[0], self._sum_context(roster)
        masks = [Mask(self_mask_seed(secrets.self_mask, context, own), +1)]
        for index in self._sharers:
            if index != self._index:
                peer = roster.keys(index, 1)
                seed = pairwise_seed(secrets.mask_key, peer.mask_public, context, own, peer.identity)
                masks.append(Mask(seed, pair_sign(own, peer.identity)))
        return masks

    def _check_survivors(self, message: Survivors, roster: VerifiedRoster, context: bytes) -> frozenset[int]:
        """Return U3 after C13, C14 and C15: inside U2, large enough, honest about this device, each with evidence."""
        alive = [survivor.member for survivor in message.survivors]
        if message.sum_index != 1 or alive != sorted(set(alive)) or not set(alive) <= set(self._sharers):
            raise SecurityError(ProblemType.SURVIVORS_REFUSED, "the survivors are not a sorted subset of the sharers")
        if len(alive) < roster.thresholds.min_survivors:
            raise SecurityError(ProblemType.SURVIVORS_REFUSED, f"{len(alive)} survivors are too few to hide among")
        if self._receipt and self._index not in alive:
            raise SecurityError(
                ProblemType.SURVIVORS_REFUSED, "the server holds this device's upload but calls it lost"
            )
        for survivor in message.survivors:
            signer = roster.members[survivor.member].identity
            header = unseal(survivor.header, Kind.UPLOAD, context, UploadHeader, signer=signer)
            if header.sum_index != 1 or header.length != payload_length(self.offer.sums[0].ring):
                raise SecurityError(ProblemType.SURVIVORS_REFUSED, "a survivor's header is for something else")
        return frozenset(alive)

    def _share_of(self, dealer: int, alive: bool, sum_index: int) -> bytes:
        """One share and never both: of the self mask of a survivor, of the mask key of a dropout."""
        if dealer not in self._held:
            return b""
        return unpack_shares(self._held[dealer])[sum_index, SELF_MASK if alive else MASK_KEY]

    def _sum_context(self, roster: VerifiedRoster) -> bytes:
        return sum_context(roster.context, 1, self._sharers)

    def _in_roster(self, *stages: ClientStage) -> tuple[VerifiedRoster, ShareKey]:
        self._expect(*stages)
        if self._roster is None:
            raise RuntimeError("the roster is not known yet")
        return self._roster, self._round_key()

    def _round_key(self) -> ShareKey:
        if self._share_key is None:
            raise RuntimeError("the round keys are gone")
        return self._share_key

    def _expect(self, *stages: ClientStage) -> None:
        if self.stage not in stages:
            raise RuntimeError(f"the participant is {self.stage}, not {' or '.join(stages)}")
