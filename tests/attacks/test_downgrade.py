"""Row 31: no message of a server leads from masked to trusted; owner, federation and task have to say so, all three."""

from collections.abc import Mapping
from typing import Any

import pytest

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProblemType, SecurityError, TaskRefusedError
from fedit_protocol.limits import Limits, check_offer_matches, check_task
from fedit_protocol.messages import Offer, SealedSpec
from fedit_protocol.round_plan import sealed_spec, sum_specs
from fedit_protocol.sealed.participant import SealedParticipant
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.succession import Succession, Successions, check_successor
from fedit_protocol.task import Mode, TaskDocument
from fedit_protocol.testing import ManualClock, MemoryFederation, seeded_random, small_task

from ..protocol.rounds import refused
from ..protocol.sealing import TRUSTING, round_spec, trusted_federation, trusted_task

NOW = ManualClock()()


def trusted_offer(federation: MemoryFederation, **changes: object) -> bytes:
    """A whole, honest offer of a trusted round."""
    document = trusted_task(5)
    return federation.offer(document, NOW, **{"sealed": round_spec(document), **changes})


def masked_device(offer: bytes, federation: MemoryFederation, limits: Limits = TRUSTING) -> Participant:
    device = federation.devices[0]
    return Participant(offer, federation.descriptor, device, limits, NOW, random=seeded_random("device"))


def trusting_device(offer: bytes, federation: MemoryFederation, limits: Limits = TRUSTING) -> SealedParticipant:
    return SealedParticipant(offer, federation.descriptor, federation.devices[0], limits, NOW)


def test_row_31_an_owner_who_allows_masks_only_refuses_every_trusted_offer() -> None:
    federation = trusted_federation(5)
    for device in (masked_device, trusting_device):
        with pytest.raises(TaskRefusedError) as error:
            device(trusted_offer(federation), federation, Limits())
        assert (error.value.code, error.value.where) == ("K011", "setting limits.modes")


def test_row_31_a_device_in_a_masked_task_refuses_a_trusted_offer_although_its_owner_allows_both() -> None:
    """The offer is well formed and signed by the pinned key; the task that was agreed to decides."""
    federation = trusted_federation(5)
    with refused(ProblemType.POLICY_REFUSED):
        masked_device(trusted_offer(federation), federation)
    with refused(ProblemType.POLICY_REFUSED):
        trusting_device(federation.offer(small_task(5), NOW), federation)
    offer = decode(Offer, read_envelope(trusted_offer(federation), Kind.OFFER).body)
    with refused(ProblemType.CONTEXT_MISMATCH):
        check_offer_matches(offer, small_task(5))


def test_row_31_a_federation_that_was_pinned_for_masks_has_no_trusted_rounds_whatever_its_server_signs() -> None:
    federation = MemoryFederation(5)
    assert federation.descriptor.modes == (Mode.MASKED,)
    with refused(ProblemType.POLICY_REFUSED):
        trusting_device(trusted_offer(federation), federation)


def test_row_31_a_descriptor_with_another_mode_is_another_federation_and_no_successor() -> None:
    federation = MemoryFederation(5)
    pinned = encode(federation.descriptor)
    new_key = SigningKey(seeded_random("new server key")(32)).public
    changes: dict[str, Any] = {"server_key": new_key, "modes": (Mode.MASKED, Mode.TRUSTED)}
    weaker = encode(federation.descriptor.model_copy(update=changes))
    assert digest_of(weaker) != digest_of(pinned)
    step = Succession(previous=pinned, following=weaker, at=1)
    steps = Successions(steps=(seal(federation.server, Kind.SUCCESSION, federation.context, step),))
    with pytest.raises(SecurityError, match="other changes"):
        check_successor(digest_of(pinned), weaker, steps)
    assert check_successor(digest_of(pinned), weaker, Successions()) is None
    assert decode(FederationDescriptor, weaker).modes == (Mode.MASKED, Mode.TRUSTED)


MASKED, TRUSTED = small_task(5), trusted_task(5)
MIXED: dict[str, tuple[TaskDocument, Mapping[str, object]]] = {
    "masked, and a key to seal to": (MASKED, {"sealed": round_spec(TRUSTED)}),
    "masked, without sums": (MASKED, {"sums": ()}),
    "masked, without sums, sealed instead": (MASKED, {"sums": (), "sealed": round_spec(TRUSTED)}),
    "trusted, without a key": (TRUSTED, {"sealed": None}),
    "trusted, and a masked sum": (TRUSTED, {"sums": sum_specs(MASKED)}),
    "trusted, in two cohorts": (TRUSTED, {"combination": {"cohorts": 2, "needed": 1}}),
    "masked, of two devices": (MASKED, {"cohort": {"cohort_min": 2}}),
}


@pytest.mark.parametrize(("document", "changes"), MIXED.values(), ids=MIXED)
def test_row_31_an_offer_that_is_neither_wholly_masked_nor_wholly_trusted_is_refused(
    document: TaskDocument, changes: Mapping[str, object]
) -> None:
    federation = trusted_federation(5)
    honest = decode(Offer, read_envelope(federation.offer(document, NOW, sealed=None), Kind.OFFER).body)
    nested = {
        name: getattr(honest, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    filled = {"sealed": round_spec(TRUSTED)} if document is TRUSTED else {}
    offer = federation.offer(document, NOW, **{**filled, **nested})
    for device in (masked_device, trusting_device):
        with refused(ProblemType.POLICY_REFUSED):
            device(offer, federation)


def test_row_31_a_task_that_turns_trusted_is_another_task_and_outside_the_limits() -> None:
    masked, trusted = small_task(5), trusted_task(5)
    assert masked.digest != trusted.digest
    with pytest.raises(TaskRefusedError) as error:
        check_task(trusted, Limits())
    assert error.value.code == "K011"


OTHER_KEY = bytes(range(32))
SWAPPED: dict[str, Mapping[str, object]] = {
    "a key that a relay put in": {"key": OTHER_KEY},
    "a larger clip": {"clip_norm": 1000.0},
    "more weight": {"max_weight": 16},
}


@pytest.mark.parametrize("changes", SWAPPED.values(), ids=SWAPPED)
def test_row_31_what_is_sealed_and_to_whom_is_under_the_servers_signature(changes: Mapping[str, object]) -> None:
    federation = trusted_federation(5)
    envelope = read_envelope(trusted_offer(federation), Kind.OFFER)
    offer = decode(Offer, envelope.body)
    assert offer.sealed is not None
    swapped = offer.model_copy(update={"sealed": offer.sealed.model_copy(update=changes)})
    with refused(ProblemType.BAD_SIGNATURE):
        trusting_device(encode(envelope.model_copy(update={"body": encode(swapped)})), federation)


@pytest.mark.parametrize("changes", [{"clip_norm": 99.0}, {"max_weight": 14, "metrics": ()}, {"size": 9}])
def test_row_31_a_signed_offer_seals_what_the_task_says(changes: Mapping[str, object]) -> None:
    document, federation = trusted_task(5), trusted_federation(5)
    spec: SealedSpec = sealed_spec(document, bytes(range(32))).model_copy(update=changes)

    def take() -> None:
        offer = trusting_device(trusted_offer(federation, sealed=spec), federation).offer
        check_offer_matches(offer, document)

    with pytest.raises(SecurityError):
        take()


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32], ids=["zero", "one", "not canonical"])
def test_row_31_a_round_key_of_low_order_is_refused(key: bytes) -> None:
    federation = trusted_federation(5)
    spec = sealed_spec(trusted_task(5), key)
    with refused(ProblemType.KEY_REFUSED):
        trusting_device(trusted_offer(federation, sealed=spec), federation)
