"""What the owner of a device allows and no server can loosen; held against every task and offer (C0 to C4)."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedit_protocol.accounting import check_meaning, epsilon, planned_epsilon
from fedit_protocol.encoding import DigestText
from fedit_protocol.enrollment import FederationDescriptor, check_log_head, federation_context
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError, TaskRefusedError
from fedit_protocol.ids import Digest, IdentityKey
from fedit_protocol.keylog import LogHead
from fedit_protocol.messages import Offer, SealedSpec, SumSpec
from fedit_protocol.methods import SketchingMethod, method_of
from fedit_protocol.methods.combination import check_combination, combination_of
from fedit_protocol.metrics import metric_specs
from fedit_protocol.modes import check_federation_mode, check_kind, check_mode
from fedit_protocol.refusals import above, allowing, check_base_size, check_modules, outside
from fedit_protocol.round_plan import allowed_sums, cohort_rules, sealed_spec, second_rule, sum_specs
from fedit_protocol.secagg.ring import check_ring, ring_metrics
from fedit_protocol.secagg.sensitivity import NoisySum, noisy_sum, seen_in
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.signing import Kind, unseal
from fedit_protocol.statistics import are_known
from fedit_protocol.task import Mode, Quantization, TaskDocument
from fedit_protocol.version import PROTOCOL_NAME, SUITE, can_talk

_FORBIDDEN_MODULES: Final = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out"})
"""Adapting these would reveal which tokens a device trained on (THREATS, sparse updates)."""


LEAST_SURVIVORS_OF_TWO_SUMS: Final = 8
"""C0: with few members two sums nearly determine each one's factors (METHODS, section 1.4, what RS reveals)."""

_DAY_S: Final = 86400
_GIB: Final = 2**30

_MOST_ANSWERED_PER_ADAPTER: Final = 2
"""C4: the round that made the adapter's successor, and one more if that came to nothing."""


class Limits(BaseModel):
    """The owner's limits. A task outside them is refused, whatever the server says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_cohort: int = Field(3, ge=3, le=128, description="fewest devices in a masked round")
    hidden_among: int = Field(2, ge=2, le=128, description="fewest honest devices behind any sum; 10 is advised")
    corrupt_fraction: float = Field(
        0.1, ge=0, lt=0.34, description="share of a cohort that the owner expects to collude"
    )
    min_clip_norm: float = Field(1e-3, gt=0, description="a smaller clip would erase the update")
    max_clip_norm: float = Field(1e3, gt=0, description="a larger clip bounds nothing")
    max_weight: int = Field(256, ge=1, le=1024, description="largest weight that one device may have")
    max_local_steps: int = Field(10_000, ge=1, description="optimizer steps in one round")
    max_rank: int = Field(256, ge=1, le=256, description="LoRA rank")
    min_cert_age_h: float = Field(
        0.0, ge=0, le=8760, description="hours since enrolment before a device may be in a round with this one"
    )
    max_rounds_per_day: int = Field(
        0, ge=0, description="most rounds of a task that this device joins in any 24 hours; 0 for no limit"
    )
    modes: tuple[Mode, ...] = Field(
        (Mode.MASKED,), description='how updates may be sent; "trusted" lets the server see each update of this device'
    )
    quantizations: tuple[Quantization, ...] = Field(tuple(Quantization), description="base classes this device runs")
    base_digests: tuple[DigestText, ...] = Field((), description="if not empty: the only base models that may be used")
    target_modules: tuple[str, ...] = Field(
        (), description="if not empty: the only modules that may be adapted, by their last name, such as q_proj"
    )
    max_base_gib: float = Field(
        64.0, gt=0, le=65536, description="largest base model, all its files together, in GiB (2^30 bytes)"
    )
    max_overlap: float = Field(
        1.0,
        ge=0,
        le=1,
        description="largest share of members that two answered rounds on one adapter may have in common, unless all;"
        " 0.9 is advised where anybody may join; 1 allows any",
    )
    max_epsilon: float = Field(
        0.0,
        ge=0,
        description="largest epsilon of a task, planned and spent; it refuses tasks without noise; 0 means no limit",
    )

    @model_validator(mode="after")
    def _clips_are_ordered(self) -> Self:
        if self.min_clip_norm > self.max_clip_norm:
            raise ValueError("min_clip_norm exceeds max_clip_norm, so that no clip would be left")
        return self

    @property
    def max_base_bytes(self) -> int:
        """`max_base_gib` in bytes."""
        return int(self.max_base_gib * _GIB)


@dataclass(frozen=True)
class AnsweredRound:
    """A round in which this device gave shares: on which adapter, with whom, over which update."""

    adapter_digest: Digest
    members: frozenset[IdentityKey]
    update_digest: Digest


@dataclass(frozen=True)
class LastSeen:
    """What this device remembers of a task: a round it took part in, the adapter it knew then, rounds it answered."""

    round_no: int
    adapter_version: int
    adapter_digest: Digest
    answered: tuple[AnsweredRound, ...] = ()
    noisy: tuple[NoisySum, ...] = ()
    """Every noisy sum that this device has fed, whatever came of its round."""
    canaries: frozenset[Digest] = frozenset()
    """The adapters whose canary loss it has given to a sum, whatever came of its round (C20)."""


def participation_wait_s(joined_at: Collection[int], limits: Limits, now_s: int) -> int:
    """Return for how many seconds the owner's limit keeps this device out of rounds, 0 if it may join now (C3).

    `joined_at` are the times of earlier joins by this device's own clock: no server's word goes into it.
    """
    window = sorted(at for at in joined_at if at > now_s - _DAY_S)
    if not limits.max_rounds_per_day or len(window) < limits.max_rounds_per_day:
        return 0
    return window[-limits.max_rounds_per_day] + _DAY_S - now_s


def check_task(document: TaskDocument, limits: Limits) -> Thresholds | None:
    """Return the weakest thresholds that the task allows; raises TaskRefusedError K001 if it exceeds the limits.

    None in mode trusted, where nothing hides an update from the server, so there is no cohort to hide in.
    """
    task = document.task
    # A module may be named by its whole path, and the layout says what the adapter really touches.
    layouts = (document.layout, document.built)
    names = (*task.adapter.target_modules, *(tensor.name for layout in layouts for tensor in layout.tensors))
    forbidden = _FORBIDDEN_MODULES & {part for name in names for part in name.split(".")}
    clip, weight, steps = task.encoding.clip_norm, task.most_weight, task.training.most_steps
    bases = limits.base_digests
    rules = (
        (clip >= limits.min_clip_norm, f"clip_norm {clip} is too low", "min_clip_norm"),
        (clip <= limits.max_clip_norm, f"clip_norm {clip} is too high", "max_clip_norm"),
        (weight <= limits.max_weight, f"max_weight {weight} is too high", "max_weight"),
        (steps <= limits.max_local_steps, f"{steps} local steps are too many", "max_local_steps"),
        (task.adapter.rank <= limits.max_rank, f"rank {task.adapter.rank} is too high", "max_rank"),
        (
            not set(limits.quantizations).isdisjoint(task.base.allowed),
            f"{' or '.join(task.base.allowed)} is not allowed",
            "quantizations",
        ),
        (not bases or task.base.digest in bases, "the base model is not an allowed one", "base_digests"),
    )
    check_mode(task.round.mode, limits.modes)
    for holds, reason, setting in rules:
        if not holds:
            raise outside(reason, setting, allowing(document, setting, limits.quantizations, bases))
    check_modules(document, limits.target_modules)
    check_base_size(document, limits.max_base_gib)
    if forbidden:
        raise TaskRefusedError(
            f"the task adapts {', '.join(sorted(forbidden))}, which would reveal single words of your data", code="K003"
        )
    if task.round.mode is Mode.TRUSTED:
        _check_plan(document, limits)
        return None
    if task.round.cohort_min < limits.min_cohort:
        raise outside(f"{task.round.cohort_min} devices are too few", "min_cohort", task.round.cohort_min)
    try:
        for spec in sum_specs(document):
            check_ring(spec.ring, cohort_rules(task))
        sizes = range(task.round.cohort_min, task.round.ring_size + 1)
        each = [Thresholds.of(members, cohort_rules(task)) for members in sizes]
    except ConfigError as error:
        raise TaskRefusedError(f"the task contradicts itself: {error}", code="K004") from error
    # Sketches of the product say as much in one sum as in a second one; the audit's four columns do not.
    sums = 2 if isinstance(method_of(document), SketchingMethod) else len(sum_specs(document))
    weakest = min(each, key=lambda thresholds: thresholds.hidden_among)
    check_cohort(min(each, key=lambda thresholds: thresholds.min_survivors), limits, sums=sums)
    check_cohort(weakest, limits, sums=sums)
    _check_plan(document, limits)
    return weakest


def check_cohort(thresholds: Thresholds, limits: Limits, *, sums: int = 1) -> None:
    """Raise TaskRefusedError if a roster is smaller, or hides a device among fewer, than the owner allows (C3).

    A second sum says more of each update, so it needs more survivors than any setting can waive (C0).
    """
    if sums > 1 and thresholds.min_survivors < LEAST_SURVIVORS_OF_TWO_SUMS:
        raise TaskRefusedError(
            f"a mean and a sketch over {thresholds.min_survivors} survivors would say too much of each update;"
            f" {LEAST_SURVIVORS_OF_TWO_SUMS} are the fewest",
            code="K009",
        )
    if thresholds.members < limits.min_cohort:
        raise outside(f"a cohort of {thresholds.members} is too small", "min_cohort", thresholds.members)
    try:
        judged = thresholds.against(limits.corrupt_fraction)
    except ConfigError as error:
        raise outside(f"too many may collude: {error}", "corrupt_fraction") from error
    if judged.hidden_among < limits.hidden_among:
        raise outside(
            f"an update would hide among {judged.hidden_among} devices only", "hidden_among", judged.hidden_among
        )


def open_offer(
    received: bytes, descriptor: FederationDescriptor, limits: Limits, last: LastSeen | None, now: datetime, mode: Mode
) -> tuple[Offer, LogHead]:
    """Return an offer and its log head: signatures and bounds hold, and the mode is the reader's (C1 to C3).

    The mode is that of the agreed task: what the owner allows in general does not turn one kind of round into another.
    """
    context = federation_context(descriptor.federation_id)
    offer = unseal(received, Kind.OFFER, context, Offer, signer=descriptor.server_key)
    head = check_log_head(offer.log_head, descriptor)
    check_offer(offer, descriptor, limits, last, int(now.timestamp()))
    if offer.mode is not mode:
        raise SecurityError(
            ProblemType.POLICY_REFUSED, f"the server offers a {offer.mode} round where a {mode} one was agreed to"
        )
    return offer, head


def check_offer(
    offer: Offer, descriptor: FederationDescriptor, limits: Limits, last: LastSeen | None, now_s: int
) -> None:
    """Check a signed offer as far as it can be checked without the task document (C1, C2, C3).

    Raises SecurityError for another protocol, federation, authority, a past round or a broken adapter chain, and
    TaskRefusedError for bounds outside the owner's limits.
    """
    if offer.protocol != PROTOCOL_NAME or offer.suite != SUITE or not can_talk(offer.version):
        raise SecurityError(
            ProblemType.VERSION_MISMATCH, f"the server speaks {offer.protocol} {offer.version}, this client does not"
        )
    if offer.federation_id != descriptor.federation_id or offer.authority_key != descriptor.authority_key:
        raise SecurityError(ProblemType.CONTEXT_MISMATCH, "the offer belongs to another federation")
    check_mode(offer.mode, limits.modes)
    check_federation_mode(offer.mode, descriptor)
    if now_s > offer.expires_at:
        raise SecurityError(ProblemType.TOO_LATE, "the offer has expired")
    check_kind(offer)
    _check_chain(offer, last)
    _check_reruns(offer, last)
    check_combination(offer.combination)
    if offer.sealed is not None:
        _check_sealed(offer.sealed, limits)
    for spec in offer.sums:
        if not limits.min_clip_norm <= spec.ring.clip_norm <= limits.max_clip_norm:
            below = spec.ring.clip_norm < limits.min_clip_norm
            setting = "min_clip_norm" if below else "max_clip_norm"
            raise outside(f"clip_norm {spec.ring.clip_norm} is out of bounds", setting, spec.ring.clip_norm)
        if spec.ring.max_weight > limits.max_weight:
            raise outside(f"max_weight {spec.ring.max_weight} is too high", "max_weight", spec.ring.max_weight)
        if not _are_figures_of_ours(spec):
            raise SecurityError(ProblemType.POLICY_REFUSED, "the offer asks for figures that this client does not send")
        if spec.ring.canary is not None and (spec.index != 1 or spec.ring.noise):
            raise SecurityError(ProblemType.POLICY_REFUSED, "the offer asks for canary losses where nothing hides them")
        if spec.ring.domains is not None and (spec.index != 1 or spec.ring.noise):
            raise SecurityError(
                ProblemType.POLICY_REFUSED, "the offer asks for losses of domains in a later or noisy sum"
            )
        try:
            check_ring(spec.ring, offer.cohort)
        except ConfigError as error:
            raise SecurityError(ProblemType.POLICY_REFUSED, str(error)) from error
    _check_noise(offer, limits, last)


def _are_figures_of_ours(spec: SumSpec) -> bool:
    """Say whether a sum asks for the fixed figures and such statistics as are known; none beside noise, or later."""
    fixed = ring_metrics(spec.ring.max_weight, spec.ring.noise) if spec.index == 1 else ()
    more = spec.ring.metrics[len(fixed) :]
    return spec.ring.metrics[: len(fixed)] == fixed and are_known(more) and not (more and not fixed)


def _check_sealed(spec: SealedSpec, limits: Limits) -> None:
    if not limits.min_clip_norm <= spec.clip_norm <= limits.max_clip_norm:
        setting = "min_clip_norm" if spec.clip_norm < limits.min_clip_norm else "max_clip_norm"
        raise outside(f"clip_norm {spec.clip_norm} is out of bounds", setting, spec.clip_norm)
    if spec.max_weight > limits.max_weight:
        raise outside(f"max_weight {spec.max_weight} is too high", "max_weight", spec.max_weight)
    fixed = metric_specs(spec.max_weight)
    if spec.metrics[: len(fixed)] != fixed or not are_known(spec.metrics[len(fixed) :]):
        raise SecurityError(ProblemType.POLICY_REFUSED, "the offer asks for figures that this client does not send")


def _check_noise(offer: Offer, limits: Limits, last: LastSeen | None) -> None:
    """Noise covers one sum of clipped updates, all of one weight; nothing else may ride along (C3)."""
    noisy = [spec.ring for spec in offer.sums if spec.ring.noise]
    if noisy and (len(offer.sums) > 1 or noisy[0].sketch_size or noisy[0].max_weight > 1):
        raise SecurityError(ProblemType.POLICY_REFUSED, "the offer asks for more than its noise would cover")
    if not noisy and limits.max_epsilon:
        raise outside("the round adds no noise, so epsilon has no bound", "max_epsilon", 0)
    check_spent(offer, limits, last)


def check_spent(offer: Offer, limits: Limits, last: LastSeen | None, roster: Thresholds | None = None) -> None:
    """Raise TaskRefusedError if one more noisy sum would exceed the owner's epsilon (C3).

    With the thresholds of a roster it is counted as the owner sees it: by the share that the owner expects to collude.
    """
    if not limits.max_epsilon:
        return
    for ring in (spec.ring for spec in offer.sums):
        if ring.noise is not None:
            wanted = noisy_sum(ring) if roster is None else seen_in(ring, roster, limits.corrupt_fraction)
            total = epsilon([*(last.noisy if last else ()), wanted], ring.noise.delta)
            if total > limits.max_epsilon:
                raise outside(f"with this round epsilon would reach {total:.3g}", "max_epsilon", above(total))


def _check_plan(document: TaskDocument, limits: Limits) -> None:
    """Hold the epsilon of all planned rounds against the owner's; refuse one that says nothing unless it says so."""
    if document.task.privacy is None:
        if limits.max_epsilon:
            raise outside("the task adds no noise, so epsilon has no bound", "max_epsilon", 0)
        return
    planned = planned_epsilon(document)
    try:
        check_meaning(document)
    except ConfigError as error:
        raise TaskRefusedError(f"the task's noise protects nobody: {error}", code="K010") from error
    if limits.max_epsilon and planned > limits.max_epsilon:
        raise outside(f"its rounds add up to an epsilon of {planned:.3g}", "max_epsilon", above(planned))


def check_offer_matches(offer: Offer, document: TaskDocument) -> None:
    """Raise SecurityError (context-mismatch) unless the offer is a round of exactly this task document."""
    task = document.task
    expected = (
        (offer.task_digest, document.digest),
        (offer.task_id, task.id),
        (offer.task_version, task.version),
        (offer.base_digest, task.base.digest),
        (offer.layout_digest, document.layout.digest),
        (offer.mode, task.round.mode),
        (offer.cohort, cohort_rules(task)),
        (offer.combination, combination_of(task, offer.combination.cohorts)),
        (offer.combination.cohorts <= task.round.cohorts, True),
        (offer.sums in allowed_sums(document, offer.adapter_version), True),
        (offer.sealed, offer.sealed and sealed_spec(document, offer.sealed.key, offer.adapter_version)),
        (offer.second_rule, second_rule(document)),
    )
    if any(found != wanted for found, wanted in expected):
        raise SecurityError(ProblemType.CONTEXT_MISMATCH, "the offered round is not one of the task that was agreed to")


def check_overlap(members: Collection[IdentityKey], offer: Offer, last: LastSeen | None, limits: Limits) -> None:
    """Refuse a roster that is nearly that of an answered round on the same adapter (C4).

    The difference of the two sums would be the update of the few who are in one and not in the other. The very same
    roster has no such difference. Closed federations cannot avoid it, so the owner decides (`max_overlap`).
    """
    for answered in answered_on(offer.adapter_digest, last):
        both, either = answered.members & set(members), answered.members | set(members)
        share = len(both) / len(either)
        if limits.max_overlap < share < 1:
            raise outside(
                f"{share:.0%} of this round's members were in an earlier one on this adapter",
                "max_overlap",
                above(share),
            )


def _check_reruns(offer: Offer, last: LastSeen | None) -> None:
    """One adapter is the start of two answered rounds at most: each more is a difference more (C4)."""
    if len(answered_on(offer.adapter_digest, last)) >= _MOST_ANSWERED_PER_ADAPTER:
        raise SecurityError(
            ProblemType.POLICY_REFUSED,
            f"this device has already answered {_MOST_ANSWERED_PER_ADAPTER} rounds on this adapter version",
        )


def answered_on(adapter: Digest, last: LastSeen | None) -> list[AnsweredRound]:
    """Return the rounds on this adapter in which this device gave shares (C4)."""
    return [answered for answered in last.answered if answered.adapter_digest == adapter] if last else []


def _check_chain(offer: Offer, last: LastSeen | None) -> None:
    """A round number only grows, and a known adapter is only replaced by its successors (C2)."""
    if last is None:
        return
    if offer.round_no <= last.round_no:
        raise SecurityError(ProblemType.TOO_LATE, f"round {offer.round_no} is not newer than round {last.round_no}")
    same = offer.adapter_version == last.adapter_version and offer.adapter_digest != last.adapter_digest
    child = offer.adapter_version == last.adapter_version + 1 and offer.parent_digest != last.adapter_digest
    if offer.adapter_version < last.adapter_version or same or child:
        raise SecurityError(ProblemType.CONTEXT_MISMATCH, "the offered adapter does not follow from the last one seen")
