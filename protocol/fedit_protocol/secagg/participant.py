"""The client half of a round, as a machine without I/O.

OFFERED       the offer is verified against signature, protocol and the owner's limits.
JOINED        fresh keys are drawn and advertised; training may start.
SHARED        the roster is verified; shares of all secrets are dealt.
ACKNOWLEDGED  the peers' shares are held; those that do not open are complained about.
READY         U2, the set whose masks must cancel, is known.
FROZEN        the update is masked, once; only its bytes may ever be sent.
UPLOADED      the server's receipt is held.
CONFIRMED     strict rounds only: one survivor set was signed; shares wait until a quorum has signed the same.
ANSWERED      shares were given for one survivor set; any other set is refused for good.
WIPED         all secrets are gone; nothing more is said.

A second sum starts at READY again, with secrets, context and survivors of its own (C18).
Checks carry the ids of SPEC, section 8 (C0 to C19); those of one sum are `own_sum`, C7 belongs to the session.
"""

from collections.abc import Callable, Collection
from datetime import datetime

from fedit_protocol.adapter import Vector, vector_digest
from fedit_protocol.encoding import Message, digest_of
from fedit_protocol.enrollment import EnrolledView, FederationDescriptor
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.limits import LastSeen, Limits, answered_on, check_cohort, check_overlap, check_spent, open_offer
from fedit_protocol.messages import (
    Ack,
    Confirm,
    Confirmations,
    Inbox,
    Join,
    Receipt,
    Roster,
    SecondInput,
    Sharers,
    Shares,
    Survivors,
    UnmaskAnswer,
    UploadHeader,
)
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.blocks import may_send, sent_rank
from fedit_protocol.secagg.canary import may_declare, own_canary
from fedit_protocol.secagg.context import offer_context, sum_context
from fedit_protocol.secagg.domain_slots import may_declare_domains, own_domains
from fedit_protocol.secagg.effects import Effects, Persist, Record, Send
from fedit_protocol.secagg.keys import ShareKey, SumSecrets, open_share, seal_share, self_mask_hash
from fedit_protocol.secagg.masking import Show, apply_masks, read_only, unseen
from fedit_protocol.secagg.own_sum import OwnSum, check_sharers, survivors_hash
from fedit_protocol.secagg.own_words import own_words
from fedit_protocol.secagg.ring import as_payload, canary_place
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.shamir import split
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK, one_of, packed_leaves
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.secagg.sum_state import second_public_input
from fedit_protocol.secagg.thresholds import Thresholds, least_second_survivors
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal
from fedit_protocol.task import Mode, Quantization


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
        """Verify the signed offer (C1 to C4); raises SecurityError or TaskRefusedError.

        `random` returns so many bytes of OS randomness (os.urandom): every secret of the round is drawn from it.
        """
        self._descriptor = descriptor
        self._key = key
        self._limits = limits
        self._random = random
        self.offer, self.log_head = open_offer(offer, descriptor, limits, last, now, Mode.MASKED)
        self._revoked: frozenset[int] = frozenset()
        self._ctx0 = offer_context(read_envelope(offer, Kind.OFFER).body)
        self.stage = ClientStage.OFFERED
        self._share_key: ShareKey | None = None
        self._secrets: tuple[SumSecrets, ...] = ()
        self._join = b""
        self._roster: VerifiedRoster | None = None
        self._index = -1
        self._held: dict[int, bytes] = {}
        self._last = last
        self._sums: list[OwnSum] = []
        self.declared: Quantization | None = None
        """The base class that this device joined with: `freeze` then wants its canary loss."""
        self.declared_domains: tuple[str, ...] = ()
        """The domains that it joined with: the report of `freeze` then has their losses."""

    @property
    def thresholds(self) -> Thresholds | None:
        """The thresholds of the roster, once it is known."""
        return self._roster.thresholds if self._roster else None

    @property
    def sum_index(self) -> int:
        """Which of the round's sums runs for this device."""
        return max(1, len(self._sums))

    @property
    def survived(self) -> bool:
        """Whether this device is among the survivors that it has answered for."""
        return bool(self._sums) and self._index in self._own_sum().alive

    @property
    def open_rank(self) -> int | None:
        """Up to which rank this device sends, once U2 is known; None where a round has one rank for all (C21)."""
        return sent_rank(self._sums[0], self._roster, self._index) if self._sums and self._roster else None

    def on_revocations(self, serials: Collection[int]) -> None:
        """Take the serials that the offer's log revokes; raises SecurityError unless they are all of them (C5)."""
        self._revoked = EnrolledView(self.log_head, frozenset(serials)).revoked

    def join(self, base_class: Quantization | None = None, domains: Collection[str] = (), rank: int = 0) -> Effects:
        """Draw fresh keys and advertise them. The round number is persisted first: it is never joined again.

        With a base class this device adds its canary loss if it may, with domains their losses; `declared` and
        `declared_domains` say so afterwards (C20). `rank` is that of its factors, where devices may differ in it (C21).
        """
        self._expect(ClientStage.OFFERED)
        self.declared_domains = may_declare_domains(self.offer, domains, self._limits, self._last)
        if base_class is not None and may_declare(self.offer, base_class, self._limits, self._last):
            self.declared = base_class
        self._share_key = ShareKey.generate(self._random)
        self._secrets = tuple(SumSecrets.generate(self._random) for _ in self.offer.sums)
        message = Join(
            share_key=self._share_key.public,
            mask_keys=tuple(secrets.mask_key.public for secrets in self._secrets),
            self_mask_hashes=tuple(self_mask_hash(secrets.self_mask) for secrets in self._secrets),
            base_class=self.declared,
            domains=self.declared_domains,
            rank=may_send(self.offer, rank, self._limits),
        )
        self._join = seal(self._key, Kind.JOIN, self._ctx0, message)
        self.stage = ClientStage.JOINED
        return (Persist(Record(kind="joined", body=self.offer.round_id.encode())), Send(Kind.JOIN, self._join))

    def on_roster(self, received: bytes, now: datetime) -> Effects:
        """Verify who else takes part (C5, C6, C3) and deal shares of every secret to every member."""
        self._expect(ClientStage.JOINED)
        message = unseal(received, Kind.ROSTER, self._ctx0, Roster, signer=self._descriptor.server_key)
        members, now_s = EnrolledView(self.log_head, self._revoked), int(now.timestamp())
        min_age_s = max(self.offer.cohort.min_cert_age_s, round(3600 * self._limits.min_cert_age_h))
        roster = VerifiedRoster.received(
            message,
            self.offer,
            self._ctx0,
            lambda shown: members.check_member(shown, self._descriptor, now_s, min_age_s),
        )
        self._index = roster.index(self._key.public)
        if roster.members[self._index].envelope != self._join:
            raise SecurityError(ProblemType.KEY_REFUSED, "the roster lists other keys for this device than it sent")
        check_cohort(roster.thresholds, self._limits, sums=len(self.offer.sums))
        check_overlap([member.identity for member in roster.members], self.offer, self._last, self._limits)
        check_spent(self.offer, self._limits, self._last, roster.thresholds)
        self._roster = roster
        shares = self._deal(roster)
        self.stage = ClientStage.SHARED
        identities = b"".join(member.identity for member in roster.members)
        return (
            Persist(Record(kind="members", body=identities)),
            Send(Kind.SHARES, seal(self._key, Kind.SHARES, roster.context, shares)),
        )

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
        check_sharers(message, roster, self._index)
        self._begin_sum(roster, message.members, b"")
        return ()

    def freeze(
        self,
        update: Vector,
        weight: int,
        report: ClientReport,
        threads: int = 1,
        show: Show = unseen,
        canary: float | None = None,
    ) -> Effects:
        """Encode and mask the update of the present sum, once (C10, C11). CPU-bound: call it in a thread.

        The masks are grown on so many threads of its own; their number changes no byte. `canary` is the loss of the
        canary rows, in nats per token: it is wanted of a device that has `declared` a class, for the first sum.
        The payload is persisted with its signed header before the first byte leaves; any resend uses those bytes.
        """
        roster, share_key = self._in_roster(ClientStage.READY)
        own = self._own_sum()
        if own.frozen:
            raise RuntimeError("the masks of this sum have covered an update already")
        own.frozen, self.stage = True, ClientStage.FROZEN  # first: whatever happens below, they serve no second one
        secrets = self._secrets[own.index - 1]
        spent = self._spend(update, own)
        loss, pads = own_canary(roster, own, self._index, share_key, self.declared, canary)
        report, padded = own_domains(roster, own, self._index, share_key, self.declared_domains, report)
        figures, corrupt = (weight, report, loss), self._limits.corrupt_fraction
        words, noted = own_words(update, figures, own.ring, roster.thresholds, corrupt, self._random)
        show(read_only(words))
        if loss is not None:
            apply_masks(words[canary_place(own.ring, loss.base_class)], pads)
        for place, slot_pads in padded:
            apply_masks(words[place], slot_pads)
        apply_masks(words, own.masks(roster, self._key.public, secrets), threads=threads)
        payload = as_payload(words, own.ring)
        digest = bytes.fromhex(digest_of(payload).removeprefix("sha256:"))
        header = UploadHeader(sum_index=own.index, length=len(payload), digest=digest)
        own.header = seal(self._key, Kind.UPLOAD, own.context, header)
        return (
            *spent,
            *noted,
            Persist(Record(kind="frozen", body=own.header), payload),
            Send(Kind.UPLOAD, own.header, payload),
        )

    def _spend(self, update: Vector, own: OwnSum) -> Effects:
        """Note which update was used; no second round on one adapter gets the vector of an answered one (C4)."""
        if own.index > 1:
            return ()
        digest = vector_digest(update)
        if digest in {earlier.update_digest for earlier in answered_on(self.offer.adapter_digest, self._last)}:
            raise SecurityError(ProblemType.POLICY_REFUSED, "this update was given to an earlier round already")
        return (Persist(Record(kind="update", body=digest.encode())),)

    def on_receipt(self, received: bytes) -> Effects:
        """Keep the server's word that the upload is on its disk (C12)."""
        self._in_roster(ClientStage.FROZEN)
        own = self._own_sum()
        receipt = unseal(received, Kind.RECEIPT, own.context, Receipt, signer=self._descriptor.server_key)
        if f"sha256:{receipt.header.hex()}" != digest_of(own.header):
            raise SecurityError(ProblemType.DIGEST_MISMATCH, "the receipt is for another upload")
        own.receipt = received
        self.stage = ClientStage.UPLOADED
        return (Persist(Record(kind="receipt", body=received)),)

    def on_survivors(self, received: bytes) -> Effects:
        """Answer one survivor set (C13 to C16): with shares, or in a strict round with our signature on it.

        The same request again gets the same stored reply; another one is refused for good.
        """
        roster, _ = self._in_roster(
            ClientStage.FROZEN, ClientStage.UPLOADED, ClientStage.CONFIRMED, ClientStage.ANSWERED
        )
        own = self._own_sum()
        message = unseal(received, Kind.SURVIVORS, own.context, Survivors, signer=self._descriptor.server_key)
        if own.asked:
            if own.asked != received:  # C16
                raise SecurityError(ProblemType.SURVIVORS_REFUSED, "the server asks about a second set of survivors")
            return own.reply
        own.alive = own.check_survivors(message, roster, self._index)
        own.asked = received
        if self.offer.cohort.strict:
            confirm = Confirm(sum_index=own.index, survivors=survivors_hash(received))
            own.reply = self._reply("confirmed", Kind.CONFIRM, confirm, own)
            self.stage = ClientStage.CONFIRMED
        else:
            own.reply = self._give_shares(own)
        return own.reply

    def on_confirmations(self, received: bytes) -> Effects:
        """Give the shares of a strict round, once a quorum has signed the set that we were shown (C17)."""
        roster, _ = self._in_roster(ClientStage.CONFIRMED, ClientStage.ANSWERED)
        own = self._own_sum()
        message = unseal(received, Kind.CONFIRMATIONS, own.context, Confirmations, signer=self._descriptor.server_key)
        own.check_confirmations(message, roster)
        if self.stage is ClientStage.CONFIRMED:
            own.reply = self._give_shares(own)
        return own.reply

    def on_second_input(self, received: bytes, result: bytes, derived: bytes) -> Effects:
        """Begin the second sum: both blobs are those that the server signed, and enter ctx_2 (C18).

        What the blobs must hold is the method's to check; whoever was shown others shares no masks with us.
        """
        roster, _ = self._in_roster(ClientStage.ANSWERED)
        first = self._own_sum()
        if len(self.offer.sums) < 2 or first.index != 1:
            raise SecurityError(ProblemType.POLICY_REFUSED, "this round has no second sum to begin")
        second = unseal(received, Kind.SECOND_INPUT, roster.context, SecondInput, signer=self._descriptor.server_key)
        if (second.result, second.input) != (digest_of(result), digest_of(derived)):
            raise SecurityError(ProblemType.DIGEST_MISMATCH, "the second sum depends on other bytes than were signed")
        if self._index not in first.alive:
            raise SecurityError(ProblemType.SURVIVORS_REFUSED, "this device did not survive the first sum")
        self._begin_sum(roster, tuple(sorted(first.alive)), second_public_input(second))
        return ()

    def wipe(self) -> None:
        """Forget every secret of the round (C19); call it at the end, on abort and on deadline."""
        self._share_key = None
        self._secrets = ()
        self._held.clear()
        self._sums.clear()
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

    def _begin_sum(self, roster: VerifiedRoster, participants: tuple[int, ...], public_input: bytes) -> None:
        index, least = len(self._sums) + 1, roster.thresholds.min_survivors
        if index == 2:
            least = least_second_survivors(self.offer.second_rule, len(participants), least)
        context = sum_context(roster.context, index, participants, public_input)
        self._sums.append(OwnSum(index, self.offer.sums[index - 1].ring, context, participants, least))
        self.stage = ClientStage.READY

    def _give_shares(self, own: OwnSum) -> Effects:
        """One share per participant and never both: of the self mask of a survivor, of the mask key of a dropout."""
        shares = tuple(self._share_of(dealer, dealer in own.alive, own.index) for dealer in own.participants)
        self.stage = ClientStage.ANSWERED
        return self._reply("answered", Kind.UNMASK, UnmaskAnswer(sum_index=own.index, shares=shares), own)

    def _reply(self, record: str, kind: Kind, message: Message, own: OwnSum) -> Effects:
        """Persist what was asked, then answer it."""
        return (
            Persist(Record(kind=record, body=own.asked)),
            Send(kind, seal(self._key, kind, own.context, message)),
        )

    def _share_of(self, dealer: int, alive: bool, sum_index: int) -> bytes:
        if dealer not in self._held:
            return b""
        return one_of(self._held[dealer], sum_index, SELF_MASK if alive else MASK_KEY)

    def _own_sum(self) -> OwnSum:
        """The sum that this device is in; call it behind `_in_roster`."""
        return self._sums[-1]

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
