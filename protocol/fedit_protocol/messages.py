"""The messages of a round, in protocol order (SPEC, section 7). Who signs each, and in which context, stands beside it.

Members are named by their roster index (0-based, sorted by identity key); a Shamir point is index + 1.
Sums are numbered from 1: a round has one masked sum, or two of which the second depends on the first.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from fedit_protocol.collusion import MAX_COHORT
from fedit_protocol.declaration import Declaration
from fedit_protocol.encoding import AsTuple, Bytes32, DigestText, Message
from fedit_protocol.ids import FederationId, RoundId, TaskId
from fedit_protocol.metrics import MetricSpec
from fedit_protocol.rank_blocks import RankBlocks
from fedit_protocol.task import MAX_COHORTS, CombineRule, Mode, Quantization
from fedit_protocol.task_fairness import MAX_DOMAINS, DomainName
from fedit_protocol.task_tables import absent_at

Index = Annotated[int, Field(ge=0, lt=MAX_COHORT)]
SumIndex = Annotated[int, Field(ge=1, le=2)]
Version = Annotated[tuple[int, int], AsTuple]


class CheckIn(Message):
    """«I am free.» Signed by the device, context: federation."""

    version: Version
    client_version: str = Field(max_length=32)
    device_kind: str = Field(max_length=32, description="coarse: cpu, nvidia-8gb, …")
    task_id: TaskId
    consent_version: int = Field(ge=1, description="the version of the task that the owner agreed to")
    sent_at: int = Field(ge=0, description="seconds since 1970, UTC")
    certificate: bytes = Field(max_length=2048)
    declared: Declaration | None = Field(
        None, exclude_if=absent_at(None), description="from version 2.2 on: left out unless the task draws by it"
    )


class WaitReason(StrEnum):
    """Why there is no offer."""

    GATHERING = "gathering"
    ROUND_RUNNING = "round-running"
    NOT_SELECTED = "not-selected"
    TASK_PAUSED = "task-paused"
    TASK_FINISHED = "task-finished"
    TASK_CHANGED = "task-changed"
    ROUND_HELD = "round-held"
    TOO_NEW = "too-new"


class CheckInReply(Message):
    """An offer envelope, or why there is none. Unsigned: the offer inside carries the server's signature."""

    offer: bytes | None
    reason: WaitReason | None
    free_clients: int = Field(ge=0)
    wanted_clients: int = Field(ge=0)
    round_no: int = Field(ge=0, description="number of the newest round of this task, open or closed")
    adapter_version: int = Field(ge=0)
    retry_after_s: float = Field(ge=0, le=3600)
    server_time: int = Field(ge=0)


class NoiseSpec(Message):
    """Skellam noise of a sum: what its honest devices add at least, together (SPEC, section 6)."""

    multiplier: float = Field(gt=0, le=1000, description="z: standard deviation of the noise over the clip")
    delta: float = Field(gt=0, le=1e-4, description="the delta that epsilon is stated for")


class CanarySlots(Message):
    """Where the canary losses of the base classes stand behind the metrics (SPEC, section 16)."""

    classes: Annotated[tuple[Quantization, ...], AsTuple, Field(min_length=2, max_length=3)]
    hidden_among: int = Field(ge=2, le=MAX_COHORT, description="fewest honest devices of one class behind its loss")


class DomainSlots(Message):
    """Where the losses of the task's domains stand behind the canary slots (SPEC, section 20)."""

    names: Annotated[tuple[DomainName, ...], AsTuple, Field(min_length=1, max_length=MAX_DOMAINS)]
    hidden_among: int = Field(ge=3, le=MAX_COHORT, description="fewest honest devices behind the loss of a domain")


class RingSpec(Message):
    """How an update becomes integers, and which ring they are summed in (SPEC, section 6)."""

    size: int = Field(ge=1, le=2**32, description="d, adapter coordinates")
    clip_norm: float = Field(gt=0)
    value_bits: int = Field(ge=2, le=16, description="4 or more, but for signs: 2 bits are -1, 0, 1")
    value_range: float = Field(gt=0)
    max_weight: int = Field(ge=1, le=1024)
    cohort_max: int = Field(ge=3, le=MAX_COHORT, description="the n that the ring is wide enough for")
    word_bits: Literal[16, 32]
    metrics: Annotated[tuple[MetricSpec, ...], AsTuple]
    sketch_size: int = Field(0, ge=0, le=2**32, description="coordinates behind the d, for methods that sketch")
    sketch_range: float = Field(1.0, gt=0, description="the value range of those coordinates")
    noise: NoiseSpec | None = Field(None, description="none: the sum is exact, and bounds nothing about one device")
    canary: CanarySlots | None = Field(
        None, exclude_if=absent_at(None), description="from version 2.1 on; left out where there is none"
    )
    blocks: RankBlocks | None = Field(
        None, exclude_if=absent_at(None), description="from version 2.2 on: several ranks"
    )
    domains: DomainSlots | None = Field(
        None, exclude_if=absent_at(None), description="from version 2.2 on; left out where there is none"
    )
    packed_bits: int = Field(
        0,
        ge=0,
        le=32,
        exclude_if=absent_at(0),
        description="from version 2.2 on: b, the ring is modulo 2^b and a word takes b bits on the wire; 0 means"
        " word_bits",
    )


class CohortRules(Message):
    """What the thresholds of the roster are computed from (SPEC, section 5)."""

    cohort_min: int = Field(ge=1, le=MAX_COHORT, description="at least 3 in masked rounds")
    corrupt_fraction: float = Field(ge=0, lt=0.34)
    dropout_fraction: float = Field(ge=0, lt=0.7)
    min_survivors: int = Field(ge=0, le=MAX_COHORT)
    threshold: int = Field(ge=0, le=MAX_COHORT)
    min_cert_age_s: int = Field(ge=0, description="youngest enrolment that may be in the roster")
    strict: bool = Field(False, description="survivors confirm the one set U3 before any share is given (C17)")


class Combination(Message):
    """How many cohorts the round has, how many must finish, and how their sums become one update (SPEC, section 12)."""

    cohorts: int = Field(ge=1, le=MAX_COHORTS)
    needed: int = Field(ge=1, le=MAX_COHORTS)
    rule: CombineRule
    trim: int = Field(ge=1, le=MAX_COHORTS)


class SumSpec(Message):
    """One masked sum of the round; the second of two belongs to methods that need it (SPEC, section 6)."""

    index: SumIndex
    purpose: Literal["update", "correction"]
    ring: RingSpec


class SealedSpec(Message):
    """A trusted round: what a device seals to the server, and to which key (SPEC, section 15)."""

    key: Bytes32 = Field(description="HK, X25519: made for this round and deleted after it")
    size: int = Field(ge=1, le=2**32, description="d, adapter coordinates")
    clip_norm: float = Field(gt=0)
    max_weight: int = Field(ge=1, le=1024)
    metrics: Annotated[tuple[MetricSpec, ...], AsTuple]


class SecondRule(StrEnum):
    """When the second of two sums may be opened: by most of the first sum's survivors, or by all of them only."""

    NONE = "none"
    SUBSET = "subset"
    ALL = "all"


class StageSeconds(Message):
    """How long each stage may take at most; `second_s` is the upload stage of a second sum."""

    join_s: float = Field(gt=0)
    shares_s: float = Field(gt=0)
    upload_s: float = Field(gt=0)
    confirm_s: float = Field(gt=0)
    unmask_s: float = Field(gt=0)
    second_s: float = Field(gt=0)


class BlobRef(Message):
    """A blob to fetch: its digest and how long it is."""

    digest: DigestText
    size: int = Field(ge=1, le=2**34, description="bytes")


class Offer(Message):
    """The whole definition of a round; ctx0 is the digest of its bytes. Signed by the server, context: federation."""

    protocol: str = Field(max_length=32)
    version: Version
    suite: str = Field(max_length=64)
    mode: Mode
    federation_id: FederationId
    authority_key: Bytes32
    log_head: bytes = Field(max_length=512, description="envelope of the key log's head")
    task_id: TaskId
    task_version: int = Field(ge=1)
    task_digest: DigestText
    round_id: Annotated[RoundId, Field(pattern=r"^[0-9a-f]{32}$")]
    round_no: int = Field(ge=1)
    opened_at: int = Field(ge=0)
    expires_at: int = Field(ge=0)
    base_digest: DigestText
    layout_digest: DigestText
    adapter_version: int = Field(ge=0)
    adapter_digest: DigestText
    parent_digest: DigestText | Literal[""] = Field(description="the adapter before this one; empty for version 0")
    cohort: CohortRules
    combination: Combination
    sums: Annotated[tuple[SumSpec, ...], AsTuple, Field(max_length=2)] = Field(description="none in mode trusted")
    sealed: SealedSpec | None = Field(None, description="in mode trusted, and in no other")
    second_rule: SecondRule = SecondRule.NONE
    seconds: StageSeconds
    state: BlobRef | None = Field(
        None,
        exclude_if=absent_at(None),
        description="from version 2.2 on: what the task's method has devices know besides the adapter; safetensors",
    )


class Join(Message):
    """advertise_keys: one mask key and one self-mask commitment per sum, one share key. Signed by the device, ctx0."""

    share_key: Bytes32
    mask_keys: Annotated[tuple[Bytes32, ...], AsTuple, Field(min_length=1, max_length=2)]
    self_mask_hashes: Annotated[tuple[Bytes32, ...], AsTuple, Field(min_length=1, max_length=2)]
    base_class: Quantization | None = Field(
        None,
        exclude_if=absent_at(None),
        description="from version 2.1 on: the class whose canary loss this device adds; left out if it adds none",
    )
    rank: int | None = Field(None, ge=1, exclude_if=absent_at(None), description="from version 2.2 on: of its factors")
    domains: Annotated[tuple[DomainName, ...], AsTuple, Field(max_length=MAX_DOMAINS)] = Field(
        (),
        exclude_if=absent_at(()),
        description="from version 2.2 on: the task's domains that this device has rows of, sorted",
    )


class Accept(Message):
    """«I take part in this round, and know its mode.» Signed by the device, ctx0; trusted rounds only."""

    mode: Literal[Mode.TRUSTED]


class RosterMember(Message):
    """A join envelope, and its signer's `ProvenCertificate`: certificate and path to the offer's log head."""

    join: bytes = Field(max_length=1024)
    certificate: bytes = Field(max_length=4096)


class Roster(Message):
    """Everyone who joined, sorted by identity key. Signed by the server, ctx0."""

    cohort_id: int = Field(ge=0, lt=MAX_COHORTS, description="which of the round's cohorts; they share the offer")
    members: Annotated[tuple[RosterMember, ...], AsTuple, Field(max_length=MAX_COHORT)]


class Shares(Message):
    """share_keys: an AEAD ciphertext per other member and leaf hashes per member, in roster order. Device, ctx."""

    ciphertexts: Annotated[tuple[bytes, ...], AsTuple, Field(max_length=MAX_COHORT)]
    leaves: Annotated[tuple[bytes, ...], AsTuple, Field(max_length=MAX_COHORT)]


class InboxItem(Message):
    """What one dealer sent to the reader."""

    dealer: Index
    ciphertext: bytes = Field(max_length=256)
    leaves: bytes = Field(max_length=256)


class Inbox(Message):
    """All shares for one member. Signed by the server, ctx."""

    items: Annotated[tuple[InboxItem, ...], AsTuple, Field(max_length=MAX_COHORT)]


class Ack(Message):
    """«I hold my shares», with the dealers whose shares do not open. Signed by the device, ctx."""

    complaints: Annotated[tuple[Index, ...], AsTuple, Field(max_length=MAX_COHORT)]


class Sharers(Message):
    """U2: who takes part in the masks. Signed by the server, ctx."""

    members: Annotated[tuple[Index, ...], AsTuple, Field(max_length=MAX_COHORT)]


class UploadHeader(Message):
    """Length and digest of the payload that follows as a raw body. Signed by the device: masked ctx_j, sealed ctx0."""

    sum_index: SumIndex
    length: int = Field(ge=1, description="bytes")
    digest: Bytes32


class Receipt(Message):
    """«Your upload is on disk.» Signed by the server, ctx_j."""

    header: Bytes32 = Field(description="SHA-256 of the header envelope")


class Survivor(Message):
    """One member of U3 and the evidence: its signed upload header, as received."""

    member: Index
    header: bytes = Field(max_length=512)


class Survivors(Message):
    """U3 of one sum; every sharer not listed is a dropout, so nobody can be listed as both. Server, ctx_j."""

    sum_index: SumIndex
    survivors: Annotated[tuple[Survivor, ...], AsTuple, Field(max_length=MAX_COHORT)]


class Confirm(Message):
    """confirm, in strict rounds: «this is the one set of survivors that I was shown.» Signed by the device, ctx_j."""

    sum_index: SumIndex
    survivors: Bytes32 = Field(description="SHA-256 of the body of the Survivors message")


class Confirmations(Message):
    """Enough members' confirmations of one U3, as received. Signed by the server, ctx_j."""

    sum_index: SumIndex
    confirmations: Annotated[tuple[Annotated[bytes, Field(max_length=512)], ...], AsTuple, Field(max_length=MAX_COHORT)]


class UnmaskAnswer(Message):
    """unmask: a 32-byte share per sharer: of its self mask if it survived, of its mask key if not. Device, ctx_j.

    A share that the device never held (it complained about the dealer) is empty.
    """

    sum_index: SumIndex
    shares: Annotated[tuple[Annotated[bytes, Field(max_length=32)], ...], AsTuple, Field(max_length=MAX_COHORT)]


class SecondInput(Message):
    """What the second sum depends on: two blobs by digest. Signed by the server, ctx; enters ctx_2."""

    result: DigestText = Field(description="the first sum's mean, float32 little-endian, and what follows it")
    result_bytes: int = Field(ge=0, le=2**34)
    input: DigestText = Field(description="what the server derived from it, for every client the same")
    input_bytes: int = Field(ge=0, le=2**34)


class RoundOutcome(StrEnum):
    """How a round ended. `held` is the only outcome that another one follows: its step waits for a decision."""

    COMMITTED = "committed"
    FAILED = "failed"
    HELD = "held"


class PrivacySpent(Message):
    """What noisy sums bound, for a device that was in every round so far; the reader computes it again."""

    rounds: int = Field(ge=1, description="rounds counted: all that were opened, because a failed one may have summed")
    round_epsilon: float = Field(ge=0)
    total_epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, le=1e-4)


class RoundResult(Message):
    """What came of the round. Signed by the server, ctx0."""

    outcome: RoundOutcome
    reason: str = Field(max_length=200, description="empty when committed")
    adapter_version: int = Field(ge=0)
    adapter_digest: DigestText
    survivors: int = Field(ge=0, le=MAX_COHORT * MAX_COHORTS)
    cohorts: int = Field(ge=0, le=MAX_COHORTS, description="cohorts whose sums went into the version")
    sums_done: int = Field(ge=0, le=2, description="masked sums behind the version; 0 in mode trusted")
    privacy: PrivacySpent | None = Field(None, description="none: the sum has no noise, and bounds nothing")
    state: BlobRef | None = Field(
        None,
        exclude_if=absent_at(None),
        description="from version 2.2 on: what devices know besides the new adapter",
    )


class Abort(Message):
    """A device gives up; carries a reason code only. Signed by the device, ctx0."""

    problem: str = Field(max_length=64)


class Leave(Message):
    """A device asks to be forgotten. Signed by the device, context: federation."""

    sent_at: int = Field(ge=0)
