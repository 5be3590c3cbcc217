"""A lying server's offer (SPEC, section 8: C1, C2, C3, C7): a client joins only the round that it was promised."""

from typing import Any

import pytest

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import FeditError, ProblemType, SecurityError, TaskRefusedError
from fedit_protocol.limits import LastSeen, Limits
from fedit_protocol.messages import Offer, StageSeconds, SumSpec
from fedit_protocol.metrics import MetricSpec
from fedit_protocol.secagg.effects import Persist, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.signing import Kind, read_envelope, seal

from .adversaries import ME, STRANGER, participant
from .rounds import persisted, refused, watched


def offered(limits: Limits | None = None, last: LastSeen | None = None, **changes: Any) -> Participant:
    """Build a participant from an offer that the server changed before it signed it."""
    round_ = watched()
    offer = round_.federation.offer(round_.document, round_.clock(), **changes)
    return participant(offer, round_.federation, round_, limits=limits or Limits(), last=last)


def test_an_honest_offer_is_taken() -> None:
    assert offered().stage is ClientStage.OFFERED


def test_c1_an_offer_signed_by_another_key_than_the_pinned_one_is_refused() -> None:
    round_ = watched()
    offer = decode(Offer, read_envelope(round_.offer, Kind.OFFER).body)
    for forger in (STRANGER, round_.federation.authority, round_.federation.devices[0]):
        with refused(ProblemType.BAD_SIGNATURE):
            participant(seal(forger, Kind.OFFER, round_.federation.context, offer), round_.federation, round_)


def test_c1_an_offer_changed_after_it_was_signed_is_refused() -> None:
    round_ = watched()
    envelope = read_envelope(round_.offer, Kind.OFFER)
    offer = decode(Offer, envelope.body).model_copy(update={"round_no": 7})
    with refused(ProblemType.BAD_SIGNATURE):
        participant(encode(envelope.model_copy(update={"body": encode(offer)})), round_.federation, round_)


def test_c1_an_offer_signed_for_another_federation_is_refused() -> None:
    round_ = watched()
    offer = decode(Offer, read_envelope(round_.offer, Kind.OFFER).body)
    with refused(ProblemType.BAD_SIGNATURE):
        participant(seal(round_.federation.server, Kind.OFFER, b"x" * 32, offer), round_.federation, round_)


def ring_of(offer: bytes, **changes: Any) -> tuple[SumSpec, ...]:
    (spec,) = decode(Offer, read_envelope(offer, Kind.OFFER).body).sums
    return (spec.model_copy(update={"ring": spec.ring.model_copy(update=changes)}),)


HONEST = watched().offer
REFUSED_OFFERS: dict[str, tuple[dict[str, Any], ProblemType]] = {
    "C1: another protocol": ({"protocol": "FedIT-SA/1"}, ProblemType.VERSION_MISMATCH),
    "C1: another suite, a downgrade": ({"suite": "X25519-Ed25519-NULL"}, ProblemType.VERSION_MISMATCH),
    "C1: a newer minor version": ({"version": (2, 99)}, ProblemType.VERSION_MISMATCH),
    "C1: another major version": ({"version": (1, 0)}, ProblemType.VERSION_MISMATCH),
    "C1: another federation": ({"federation_id": "0" * 32}, ProblemType.CONTEXT_MISMATCH),
    "C1: another authority": ({"authority_key": STRANGER.public}, ProblemType.CONTEXT_MISMATCH),
    "C2: it has expired": ({"expires_at": 1}, ProblemType.TOO_LATE),
    "C3: a ring too narrow for the cohort": (
        {"sums": ring_of(HONEST, cohort_max=128, max_weight=15)},
        ProblemType.POLICY_REFUSED,
    ),
    "C3: two sums, which this client does not know": (
        {"sums": (*ring_of(HONEST), ring_of(HONEST)[0].model_copy(update={"index": 2}))},
        ProblemType.POLICY_REFUSED,
    ),
    "C3: one sum with the wrong number": (
        {"sums": (ring_of(HONEST)[0].model_copy(update={"index": 2}),)},
        ProblemType.POLICY_REFUSED,
    ),
    "C3: figures that nobody agreed to send": (
        {"sums": ring_of(HONEST, metrics=(MetricSpec(name="salary", maximum=10**6),))},
        ProblemType.POLICY_REFUSED,
    ),
}


@pytest.mark.parametrize(("changes", "problem"), REFUSED_OFFERS.values(), ids=REFUSED_OFFERS)
def test_an_offer_is_refused(changes: dict[str, Any], problem: ProblemType) -> None:
    with refused(problem):
        offered(**changes)


OUTSIDE_LIMITS: dict[str, tuple[Limits, dict[str, Any]]] = {
    "the clip is too large": (Limits(max_clip_norm=99.0), {}),
    "the clip would erase the update": (Limits(min_clip_norm=101.0), {}),
    "the weight is too large": (Limits(max_weight=14), {}),
    "no mode is allowed": (Limits(modes=()), {}),
}


@pytest.mark.parametrize(("limits", "changes"), OUTSIDE_LIMITS.values(), ids=OUTSIDE_LIMITS)
def test_c3_an_offer_outside_the_owners_limits_is_refused(limits: Limits, changes: dict[str, Any]) -> None:
    with pytest.raises(TaskRefusedError) as error:
        offered(limits, **changes)
    assert error.value.code == "K001"


def test_c1_a_mode_that_the_descriptor_does_not_allow_is_refused() -> None:
    round_ = watched()
    round_.federation.descriptor = round_.federation.descriptor.model_copy(update={"modes": ()})
    with refused(ProblemType.POLICY_REFUSED):
        participant(round_.offer, round_.federation, round_)


def test_c7_a_log_head_that_the_authority_did_not_sign_is_refused() -> None:
    round_ = watched()
    head = round_.federation.log_head()
    envelope = read_envelope(head, Kind.LOG_HEAD)
    for forged in (
        encode(envelope.model_copy(update={"signer": round_.federation.server.public})),
        encode(envelope.model_copy(update={"signature": bytes(64)})),
    ):
        with refused(ProblemType.BAD_SIGNATURE):
            offered(log_head=forged)


SEEN = LastSeen(round_no=5, adapter_version=3, adapter_digest=digest_of(b"third"))
CHAINS: dict[str, tuple[dict[str, Any], ProblemType | None]] = {
    "the next round on the same adapter": (
        {"round_no": 6, "adapter_version": 3, "adapter_digest": SEEN.adapter_digest},
        None,
    ),
    "the next adapter, whose parent is known": (
        {"round_no": 6, "adapter_version": 4, "parent_digest": SEEN.adapter_digest},
        None,
    ),
    "a later adapter after missed rounds": ({"round_no": 9, "adapter_version": 6}, None),
    "the same round again": ({"round_no": 5, "adapter_version": 3}, ProblemType.TOO_LATE),
    "an earlier round": ({"round_no": 4, "adapter_version": 3}, ProblemType.TOO_LATE),
    "an earlier adapter": ({"round_no": 6, "adapter_version": 2}, ProblemType.CONTEXT_MISMATCH),
    "other bytes under a known version": ({"round_no": 6, "adapter_version": 3}, ProblemType.CONTEXT_MISMATCH),
    "a child of another adapter": (
        {"round_no": 6, "adapter_version": 4, "parent_digest": digest_of(b"other")},
        ProblemType.CONTEXT_MISMATCH,
    ),
}


@pytest.mark.parametrize(("changes", "problem"), CHAINS.values(), ids=CHAINS)
def test_c2_rounds_and_adapters_only_move_forward(changes: dict[str, Any], problem: ProblemType | None) -> None:
    if problem is None:
        assert offered(last=SEEN, **changes).stage is ClientStage.OFFERED
        return
    with refused(problem):
        offered(last=SEEN, **changes)


def test_the_round_is_persisted_before_the_keys_leave() -> None:
    round_ = watched()
    effects = round_.members[ME].join()
    assert [type(effect) for effect in effects] == [Persist, Send]
    assert persisted(effects) == ["joined"]


def test_every_refusal_has_a_code_and_no_traceback_for_the_user() -> None:
    with pytest.raises(FeditError) as error:
        offered(protocol="FedIT-SA/1")
    assert isinstance(error.value, SecurityError)
    assert error.value.exit_code == 6


def test_a_stage_without_end_is_not_offered() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        StageSeconds(join_s=0, shares_s=1, upload_s=1, confirm_s=1, unmask_s=1, second_s=1)
