"""Rows 1, 2, 22, 26, 31: a server that swaps keys, invents devices, plants weak keys, or lowers the protection."""

from typing import Any

import cbor2
import pytest

from fedit_protocol.encoding import decode, encode, hash_parts
from fedit_protocol.enrollment import Certificate, ProvenCertificate
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Join, Offer, Roster, RosterMember
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.keys import MaskKey, ShareKey
from fedit_protocol.signing import Envelope, Kind, SigningKey, read_envelope, seal, unseal
from fedit_protocol.testing import ManualClock, MemoryFederation, one_hot_updates, seeded_random, small_task
from fedit_protocol.version import PROTOCOL_NAME, SUITE

from ..protocol.rounds import REPORT
from .cast import LIAR, AttackedRound, Cast, LyingServer, attacked

MITM = MaskKey(seeded_random("man in the middle")(32))
STRANGER = SigningKey(seeded_random("stranger")(32))
UPDATES = one_hot_updates(5, 8)


class RosterServer(LyingServer):
    """Shows every device a roster of its own making, under its own real signature."""

    def entries(self) -> list[RosterMember]:
        """The honest roster."""
        return list(decode(Roster, read_envelope(self._state.documents["roster"], Kind.ROSTER).body).members)

    def lie(self, entries: list[RosterMember]) -> list[RosterMember]:
        """Return the roster to show."""
        raise NotImplementedError

    def roster(self, reader: IdentityKey) -> bytes:
        super().roster(reader)
        shown = sorted(self.lie(self.entries()), key=lambda entry: read_envelope(entry.join, Kind.JOIN).signer)
        return seal(self._key, Kind.ROSTER, self._state.context0, Roster(cohort_id=0, members=tuple(shown)))


def with_keys(entry: RosterMember, **keys: Any) -> Join:
    return decode(Join, read_envelope(entry.join, Kind.JOIN).body).model_copy(update=keys)


class SwapsMaskKey(RosterServer):
    """Puts a mask key whose secret it knows into a member's join, below the member's own signature."""

    def lie(self, entries: list[RosterMember]) -> list[RosterMember]:
        envelope = read_envelope(entries[LIAR].join, Kind.JOIN)
        forged = envelope.model_copy(update={"body": encode(with_keys(entries[LIAR], mask_keys=(MITM.public,)))})
        return [
            *entries[:LIAR],
            RosterMember(join=encode(forged), certificate=entries[LIAR].certificate),
            *entries[LIAR + 1 :],
        ]


class SignsSwappedKey(RosterServer):
    """Signs the swapped key itself, in the member's place, with the member's certificate beside it."""

    def lie(self, entries: list[RosterMember]) -> list[RosterMember]:
        join = with_keys(entries[LIAR], share_key=MITM.public)
        forged = seal(self._key, Kind.JOIN, self._state.context0, join)
        return [*entries[:LIAR], RosterMember(join=forged, certificate=entries[LIAR].certificate), *entries[LIAR + 1 :]]


@pytest.mark.parametrize("server", [SwapsMaskKey, SignsSwappedKey])
def test_row_01_a_server_that_swaps_keys_is_refused_by_everybody_and_gets_nothing(server: type[RosterServer]) -> None:
    """C5: joins are signed by enrolled identities, so nobody deals a single share to a key of the server's making."""
    round_ = attacked(server=server)
    assert set(round_.refusals) == {0, 1, 2, 3, 4}
    assert all(isinstance(refusal, SecurityError) for refusal in round_.refusals.values())
    assert all(round_.kinds_said(number) == [Kind.JOIN] for number in range(5)), "no share, no upload"


def sybil_join(context0: bytes, key: SigningKey, **keys: Any) -> bytes:
    draw = seeded_random("sybil")
    honest = {
        "share_key": ShareKey.generate(draw).public,
        "mask_keys": (MaskKey.generate(draw).public,),
        "self_mask_hashes": (draw(32),),
    }
    return seal(key, Kind.JOIN, context0, Join.model_construct(**(honest | keys)))


def certificate_by(key: SigningKey, **changes: Any) -> bytes:
    """A certificate for the stranger, signed by `key`, with the path of a device that is in the log."""
    federation = MemoryFederation(5)
    honest = decode(Certificate, read_envelope(federation.certificate(STRANGER.public), Kind.CERTIFICATE).body)
    certificate = seal(key, Kind.CERTIFICATE, federation.context, honest.model_copy(update=changes))
    path = federation.path(federation.devices[LIAR].public)
    return encode(ProvenCertificate(certificate=certificate, path=path))


class AddsSybil(RosterServer):
    """Replaces a member by a device of its own, with somebody else's certificate."""

    def certificate(self, entry: RosterMember) -> bytes:
        """Return what it shows for its device."""
        return entry.certificate

    def lie(self, entries: list[RosterMember]) -> list[RosterMember]:
        join = sybil_join(self._state.context0, STRANGER)
        shown = RosterMember(join=join, certificate=self.certificate(entries[LIAR]))
        return [*entries[:LIAR], shown, *entries[LIAR + 1 :]]


class SelfMade(AddsSybil):
    """A certificate that the server signed, and not the authority."""

    def certificate(self, entry: RosterMember) -> bytes:
        return certificate_by(self._key)


class Outdated(AddsSybil):
    """A certificate that has expired."""

    def certificate(self, entry: RosterMember) -> bytes:
        return certificate_by(MemoryFederation(5).authority, not_after=1)


class ListsTwice(RosterServer):
    """One device in two places."""

    def lie(self, entries: list[RosterMember]) -> list[RosterMember]:
        return [*entries[:LIAR], entries[LIAR - 1], *entries[LIAR + 1 :]]


class NotInTheLog(AddsSybil):
    """A certificate that the authority really signed, for a device that it never wrote into the log."""

    def certificate(self, entry: RosterMember) -> bytes:
        return certificate_by(MemoryFederation(5).authority)


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (AddsSybil, ProblemType.NOT_ENROLLED),
        (SelfMade, ProblemType.BAD_SIGNATURE),
        (Outdated, ProblemType.NOT_ENROLLED),
        (NotInTheLog, ProblemType.NOT_ENROLLED),
        (ListsTwice, ProblemType.KEY_REFUSED),
    ],
)
def test_row_02_an_invented_or_repeated_device_in_the_roster_is_refused(
    server: type[RosterServer], problem: ProblemType
) -> None:
    """C5: certificate of the authority, in force, in the offer's log, for this very identity, and nobody twice."""
    round_ = attacked(server=server)
    assert {number: round_.problems().get(number) for number in (0, 1, 2, 4)} == dict.fromkeys((0, 1, 2, 4), problem)
    assert all(Kind.SHARES not in round_.kinds_said(number) for number in range(5))


def small_order(index: int) -> bytes:
    """Encodings of points whose order divides 8 (Wycheproof: «public key of low order»)."""
    return (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f")[index]


class PlantsWeakKey(RosterServer):
    """Adds an accomplice's join whose round key is of low order: every exchange with it would give zero."""

    def lie(self, entries: list[RosterMember]) -> list[RosterMember]:
        accomplice = MemoryFederation(5).devices[LIAR]
        join = sybil_join(self._state.context0, accomplice, mask_keys=(small_order(0),))
        return [*entries[:LIAR], RosterMember(join=join, certificate=entries[LIAR].certificate), *entries[LIAR + 1 :]]


def test_row_22_a_weak_round_key_in_the_roster_is_refused_by_everybody() -> None:
    """C6, client side: the accomplice's signature and certificate are real, its key is not usable."""
    round_ = attacked(server=PlantsWeakKey)
    assert {number: round_.problems().get(number) for number in (0, 1, 2, 4)} == dict.fromkeys(
        (0, 1, 2, 4), ProblemType.KEY_REFUSED
    )
    assert all(round_.kinds_said(number) == [Kind.JOIN] for number in range(5))


@pytest.mark.parametrize("index", range(3))
def test_row_22_a_device_cannot_stop_the_round_with_a_weak_or_copied_key(index: int) -> None:
    """C6 and S2, server side: such a join is turned away and the others go on."""
    round_ = AttackedRound(5, Cast())
    liar = round_.federation.devices[LIAR]
    certificate = round_.federation.proven(liar.public)
    round_.act("join", 0, round_.members[0], UPDATES[0], 1, REPORT)
    copied = decode(Join, read_envelope(round_.said[0][0].envelope, Kind.JOIN).body).mask_keys
    for keys in ((small_order(index),), copied):
        with pytest.raises(SecurityError) as refused:
            round_.server.on_join(sybil_join(round_.context0, liar, mask_keys=keys), certificate, round_.clock())
        assert refused.value.problem is ProblemType.KEY_REFUSED


def offered(limits: Limits | None = None, **changes: Any) -> AttackedRound:
    """A round in which device 2 is offered something else, really signed by the server."""
    federation = MemoryFederation(5)
    fields = cbor2.loads(read_envelope(federation.offer(small_task(5), ManualClock()()), Kind.OFFER).body)
    return AttackedRound(5, Cast(offers={2: signed(federation, fields | changes)}, limits=limits or Limits()))


def signed(federation: MemoryFederation, fields: dict[str, Any]) -> bytes:
    """Sign an offer of these fields, whether or not this version knows them."""
    body = cbor2.dumps(fields, canonical=True)
    signature = federation.server.sign(Kind.OFFER, federation.context, body)
    return encode(Envelope(kind=Kind.OFFER, signer=federation.server.public, body=body, signature=signature))


def test_row_26_another_suite_is_refused_and_every_suite_has_its_own_contexts() -> None:
    """C1: a weaker (or unknown) suite ends the round for the device that it was offered to."""
    round_ = offered(suite="X25519-Ed25519-AES128CTR-CHACHA20POLY1305-SHA256")
    assert round_.problems() == {2: ProblemType.VERSION_MISMATCH}
    assert round_.said[2] == []
    body = read_envelope(round_.offer, Kind.OFFER).body
    assert offer_context(body) == hash_parts("ctx0", PROTOCOL_NAME, SUITE, body)
    assert offer_context(body) != hash_parts("ctx0", PROTOCOL_NAME, SUITE + "x", body)


@pytest.mark.parametrize("changes", [{"protocol": "FedIT-SA/1"}, {"version": (1, 0)}, {"version": (2, 9)}])
def test_row_26_another_protocol_is_refused(changes: dict[str, Any]) -> None:
    """C1: no way back to a version with weaker rules, nor on to one that this device does not know."""
    round_ = offered(**changes)
    assert round_.problems() == {2: ProblemType.VERSION_MISMATCH}


def test_row_31_an_offer_without_masks_is_refused_by_an_owner_who_agreed_to_masks() -> None:
    """C1: the mode stands in the offer; the owner's list decides and there is no way down from masked."""
    round_ = offered(mode="trusted")
    assert set(round_.refusals) == {2}
    assert round_.said[2] == []


def test_row_31_a_mode_changed_on_the_way_breaks_the_signature_and_signed_anew_is_another_round() -> None:
    federation = MemoryFederation(5)
    masked = federation.offer(small_task(5), ManualClock()())
    fields = cbor2.loads(read_envelope(masked, Kind.OFFER).body)
    trusted = signed(federation, fields | {"mode": "trusted"})
    bodies = [read_envelope(offer, Kind.OFFER).body for offer in (masked, trusted)]
    assert offer_context(bodies[0]) != offer_context(bodies[1])
    spliced = encode(read_envelope(masked, Kind.OFFER).model_copy(update={"body": bodies[1]}))
    with pytest.raises(SecurityError) as refused:
        unseal(spliced, Kind.OFFER, federation.context, Offer, signer=federation.server.public)
    assert refused.value.problem is ProblemType.BAD_SIGNATURE
