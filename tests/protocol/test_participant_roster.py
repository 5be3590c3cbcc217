"""A lying server's roster (SPEC, section 8: C3, C5, C6): an honest client deals no share to devices it cannot trust."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import Certificate, ProvenCertificate
from fedit_protocol.errors import ProblemType, TaskRefusedError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import Limits
from fedit_protocol.messages import CohortRules, Join, Roster, RosterMember, Shares
from fedit_protocol.secagg.keys import ShareKey
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.signing import Envelope, Kind, SigningKey, read_envelope, seal
from fedit_protocol.testing import ENROLLED_AT, ManualClock, MemoryFederation, seeded_random, small_task

from .adversaries import ME, STRANGER, join_by, participant
from .rounds import SIZE, WatchedRound, refused, sent, watched

# --- the attacks ----------------------------------------------------------------------------------


def members_of(round_: WatchedRound) -> list[RosterMember]:
    received = round_.server.roster(round_.device(ME))
    return list(decode(Roster, read_envelope(received, Kind.ROSTER).body).members)


def show_roster(round_: WatchedRound, members: list[RosterMember], cohort_id: int = 0) -> bytes:
    """Show the client a roster that the server signed; return what the client would send, or raise."""
    message = Roster.model_construct(cohort_id=cohort_id, members=tuple(members))
    roster = seal(round_.federation.server, Kind.ROSTER, round_.context0, message)
    return sent(round_.members[ME].on_roster(roster, round_.clock()))


def by_identity(members: list[RosterMember]) -> list[RosterMember]:
    return sorted(members, key=lambda member: read_envelope(member.join, Kind.JOIN).signer)


def join_of(member: RosterMember) -> Join:
    return decode(Join, read_envelope(member.join, Kind.JOIN).body)


def swap_mask_key(round_: WatchedRound) -> list[RosterMember]:
    """The attack of row 1: another mask key in a peer's join, without the peer's signature."""
    members = members_of(round_)
    envelope = read_envelope(members[0].join, Kind.JOIN)
    join = join_of(members[0]).model_copy(update={"mask_keys": (ShareKey.generate(seeded_random("mitm")).public,)})
    forged = envelope.model_copy(update={"body": encode(join)})
    return [RosterMember(join=encode(forged), certificate=members[0].certificate), *members[1:]]


def replace_peer(round_: WatchedRound, key: SigningKey, certificate: bytes, **changes: Any) -> list[RosterMember]:
    """Put a device of the server's own making in the place of member 0."""
    sybil = RosterMember(join=join_by(round_, key, **changes), certificate=certificate)
    return by_identity([sybil, *members_of(round_)[1:]])


def stolen_certificate(round_: WatchedRound) -> list[RosterMember]:
    return replace_peer(round_, STRANGER, members_of(round_)[0].certificate)


def certificate_by(signer: SigningKey, round_: WatchedRound, **changes: Any) -> bytes:
    honest = decode(Certificate, read_envelope(round_.federation.certificate(STRANGER.public), Kind.CERTIFICATE).body)
    certificate = seal(signer, Kind.CERTIFICATE, round_.federation.context, honest.model_copy(update=changes))
    return encode(decode(ProvenCertificate, round_.federation.proven(STRANGER.public)).model_copy(
        update={"certificate": certificate}))  # fmt: skip


def self_signed(round_: WatchedRound) -> list[RosterMember]:
    return replace_peer(round_, STRANGER, certificate_by(round_.federation.server, round_))


def expired(round_: WatchedRound) -> list[RosterMember]:
    return replace_peer(round_, STRANGER, certificate_by(round_.federation.authority, round_, not_after=1))


def not_yet_valid(round_: WatchedRound) -> list[RosterMember]:
    return replace_peer(round_, STRANGER, certificate_by(round_.federation.authority, round_, not_before=2**40))


def of_another_federation(round_: WatchedRound) -> list[RosterMember]:
    return replace_peer(round_, STRANGER, certificate_by(round_.federation.authority, round_, federation_id="f" * 32))


def copied_key(field: str) -> Callable[[WatchedRound], list[RosterMember]]:
    def attack(round_: WatchedRound) -> list[RosterMember]:
        """An enrolled accomplice copies a round key of the victim: it would share the victim's masks."""
        mine = join_of(members_of(round_)[ME])
        copies = {"share_key": mine.share_key, "mask_keys": (mine.mask_keys[0],)}
        accomplice = round_.federation.devices[0]
        certificate = round_.federation.proven(accomplice.public)
        return replace_peer(round_, accomplice, certificate, **{field: copies[field]})

    return attack


def accomplice_with(**changes: Any) -> Callable[[WatchedRound], list[RosterMember]]:
    def attack(round_: WatchedRound) -> list[RosterMember]:
        accomplice = round_.federation.devices[0]
        return replace_peer(round_, accomplice, round_.federation.proven(accomplice.public), **changes)

    return attack


def small_order_member(round_: WatchedRound) -> list[RosterMember]:
    """A key of order 1 with the trivial signature (R = S·B with S = 0): it verifies on any message in the library."""
    identity = IdentityKey(b"\x01" + bytes(31))
    join = join_of(members_of(round_)[0])
    envelope = Envelope(kind=Kind.JOIN, signer=identity, body=encode(join), signature=identity + bytes(32))
    certificate = round_.federation.proven(identity)
    return by_identity([RosterMember(join=encode(envelope), certificate=certificate), *members_of(round_)[1:]])


def join_of_another_round(round_: WatchedRound) -> list[RosterMember]:
    """Row 7: a member was given another model, so its join is signed under another ctx0."""
    other = round_.federation.offer(round_.document, round_.clock(), adapter_digest=digest_of(b"another model"))
    misled = Participant(
        other,
        round_.federation.descriptor,
        round_.federation.devices[0],
        Limits(),
        round_.clock(),
        random=seeded_random("misled"),
    )
    join = sent(misled.join())
    members = members_of(round_)
    return [RosterMember(join=join, certificate=members[0].certificate), *members[1:]]


def my_keys_swapped(round_: WatchedRound) -> list[RosterMember]:
    """The device's own older join, replayed: validly signed, but not what it sent this time."""
    members = members_of(round_)
    join = join_by(round_, round_.federation.devices[ME])
    return [*members[:ME], RosterMember(join=join, certificate=members[ME].certificate), *members[ME + 1 :]]


def own_certificate(round_: WatchedRound, place: int, **changes: Any) -> list[RosterMember]:
    """The roster as it is, but for what it shows of one enrolled member's certificate or path."""
    members = members_of(round_)
    shown = decode(ProvenCertificate, members[place].certificate).model_copy(update=changes)
    return [*members[:place], members[place].model_copy(update={"certificate": encode(shown)}), *members[place + 1 :]]


def not_in_the_log(round_: WatchedRound) -> list[RosterMember]:
    """Row 2: a Sybil that a lying authority certified, but does not dare to log."""
    return replace_peer(round_, STRANGER, certificate_by(round_.federation.authority, round_))


def another_enrolment_time(round_: WatchedRound) -> list[RosterMember]:
    """Row 2: a device is made to look older than its entry in the log says."""
    honest = decode(Certificate, read_envelope(round_.federation.certificate(round_.device(0)), Kind.CERTIFICATE).body)
    older = seal(round_.federation.authority, Kind.CERTIFICATE, round_.federation.context,
                 honest.model_copy(update={"enrolled_at": honest.enrolled_at - 86400}))  # fmt: skip
    return own_certificate(round_, 0, certificate=older)


ROSTERS: dict[str, tuple[Callable[[WatchedRound], list[RosterMember]], ProblemType]] = {
    "C5: a peer's mask key is swapped": (swap_mask_key, ProblemType.BAD_SIGNATURE),
    "C5: a stranger with somebody else's certificate": (stolen_certificate, ProblemType.NOT_ENROLLED),
    "C5: a certificate that the server signed": (self_signed, ProblemType.BAD_SIGNATURE),
    "C5: an expired certificate": (expired, ProblemType.NOT_ENROLLED),
    "C5: a certificate from the future": (not_yet_valid, ProblemType.NOT_ENROLLED),
    "C5: a certificate that names another federation": (of_another_federation, ProblemType.NOT_ENROLLED),
    "C5: a certificate that is in no log (row 2)": (not_in_the_log, ProblemType.NOT_ENROLLED),
    "C5: a certificate with another time than its log entry (row 2)": (
        another_enrolment_time,
        ProblemType.NOT_ENROLLED,
    ),
    "C5: a path to the log that is cut off": (
        lambda round_: own_certificate(round_, 0, path=()),
        ProblemType.NOT_ENROLLED,
    ),
    "C5: the path of another member": (
        lambda round_: own_certificate(
            round_, 0, path=decode(ProvenCertificate, members_of(round_)[1].certificate).path
        ),
        ProblemType.NOT_ENROLLED,
    ),
    "C5: the roster is not sorted": (lambda round_: members_of(round_)[::-1], ProblemType.KEY_REFUSED),
    "C5: a device twice": (
        lambda round_: [members_of(round_)[0], *members_of(round_)[:4]],
        ProblemType.KEY_REFUSED,
    ),
    "C5: this device is left out": (
        lambda round_: members_of(round_)[:ME] + members_of(round_)[ME + 1 :],
        ProblemType.NOT_IN_COHORT,
    ),
    "C5: this device with other keys than it sent": (my_keys_swapped, ProblemType.KEY_REFUSED),
    "C5: a peer with this device's share key": (copied_key("share_key"), ProblemType.KEY_REFUSED),
    "C5: a peer with this device's mask key": (copied_key("mask_keys"), ProblemType.KEY_REFUSED),
    "C5: a peer whose two keys are one": (
        accomplice_with(share_key=STRANGER.public, mask_keys=(STRANGER.public,)),
        ProblemType.KEY_REFUSED,
    ),
    "C5: a peer with keys for two sums": (
        accomplice_with(mask_keys=(b"\x05" * 32, b"\x06" * 32), self_mask_hashes=(bytes(32), bytes(32))),
        ProblemType.CONTEXT_MISMATCH,
    ),
    "C5: a peer that was given another model": (join_of_another_round, ProblemType.BAD_SIGNATURE),
    "C5: two devices, fewer than the offer said": (
        lambda round_: members_of(round_)[ME : ME + 2],
        ProblemType.POLICY_REFUSED,
    ),
    "C5: nobody": (lambda round_: [], ProblemType.POLICY_REFUSED),
    "C6: an identity of small order with the trivial signature": (small_order_member, ProblemType.KEY_REFUSED),
    "C6: a share key of low order": (accomplice_with(share_key=bytes(32)), ProblemType.KEY_REFUSED),
    "C6: a mask key of low order": (accomplice_with(mask_keys=(b"\x01" + bytes(31),)), ProblemType.KEY_REFUSED),
    "C6: a mask key that is not canonical": (accomplice_with(mask_keys=(b"\xff" * 32,)), ProblemType.KEY_REFUSED),
}


# --- the checks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("attack", "problem"), ROSTERS.values(), ids=ROSTERS)
def test_a_roster_is_refused_and_nothing_is_dealt(
    attack: Callable[[WatchedRound], list[RosterMember]], problem: ProblemType
) -> None:
    round_ = watched(until="shares")
    members = attack(round_)
    with refused(problem):
        show_roster(round_, members)
    assert round_.members[ME].stage is ClientStage.JOINED
    assert round_.members[ME].thresholds is None


def test_the_honest_roster_is_taken_and_names_the_thresholds() -> None:
    round_ = watched(until="shares")
    show_roster(round_, members_of(round_))
    thresholds = round_.members[ME].thresholds
    assert thresholds is not None
    assert (thresholds.members, thresholds.min_survivors, thresholds.threshold) == (5, 4, 4)


def test_c5_a_roster_larger_than_the_ring_is_made_for_is_refused() -> None:
    federation = MemoryFederation(5)
    federation.enroll(STRANGER.public)
    round_ = WatchedRound(federation, small_task(5, SIZE))
    round_.play_until("shares")
    members = [*members_of(round_)]
    members.append(RosterMember(join=join_by(round_, STRANGER), certificate=federation.proven(STRANGER.public)))
    with refused(ProblemType.POLICY_REFUSED):
        show_roster(round_, by_identity(members))


def after_a_revocation() -> WatchedRound:
    """Device 0 was revoked before the round: the offer's log says so, and the server invites it nevertheless."""
    federation = MemoryFederation(5)
    federation.revoke(federation.devices[0].public)
    return WatchedRound(federation, small_task(5, SIZE))


def test_c5_a_revoked_device_in_the_roster_is_refused() -> None:
    round_ = after_a_revocation()
    for member in round_.members:
        member.on_revocations([0])
    round_.play_until("shares")
    with refused(ProblemType.NOT_ENROLLED) as error:
        show_roster(round_, members_of(round_))
    assert "revoked" in str(error.value)


@pytest.mark.parametrize("serials", [(), (1,), (0, 1)], ids=["none", "another", "one too many"])
def test_c5_a_list_of_revocations_other_than_the_authoritys_is_refused(serials: tuple[int, ...]) -> None:
    round_ = after_a_revocation()
    with refused(ProblemType.NOT_ENROLLED):
        round_.members[ME].on_revocations(serials)
    round_.play_until("shares")
    with refused(ProblemType.NOT_ENROLLED):  # nor does a server get away with giving none at all
        show_roster(round_, members_of(round_))


def test_c5_two_heads_of_the_log_give_no_common_round() -> None:
    """Row 33: each offer is honest about its own log, but a join made under one is none under the other."""
    round_ = watched()
    other = MemoryFederation(5)
    other.enroll(STRANGER.public)
    elsewhere = WatchedRound(other, small_task(5, SIZE))
    joins = [sent(member.join()) for member in elsewhere.members[:ME]]
    joins += [sent(member.join()) for member in round_.members[ME:]]
    members = [
        RosterMember(join=join, certificate=round_.federation.proven(device.public))
        for join, device in zip(joins, round_.federation.devices, strict=True)
    ]
    with refused(ProblemType.BAD_SIGNATURE):
        show_roster(round_, members)


@pytest.mark.parametrize("by", ["the owner", "the task"])
def test_c5_a_device_that_enrolled_too_recently_is_refused(by: str) -> None:
    """Row 2: a crowd of devices enrolled for the occasion; the limit of the owner or of the task, whichever is more."""
    for hours, young in ((23, False), (25, True)):
        federation, clock = MemoryFederation(5), ManualClock(datetime.fromtimestamp(ENROLLED_AT + 24 * 3600, UTC))
        document = small_task(5, SIZE, min_cert_age_h=hours if by == "the task" else 0)
        round_ = WatchedRound(federation, document, clock=clock)
        limits = Limits(min_cert_age_h=hours if by == "the owner" else 0)
        round_.members[ME] = participant(round_.offer, federation, round_, limits=limits)
        round_.play_until("shares")
        if not young:
            show_roster(round_, members_of(round_))
            continue
        with refused(ProblemType.NOT_ENROLLED) as error:
            show_roster(round_, members_of(round_))
        assert "enrolled less than" in str(error.value)


def with_limits(limits: Limits) -> WatchedRound:
    """A round until the roster, in which this client has these limits."""
    round_ = watched()
    round_.members[ME] = participant(round_.offer, round_.federation, round_, limits=limits)
    round_.play_until("shares")
    return round_


def test_c3_a_cohort_smaller_than_the_owner_allows_is_refused() -> None:
    for least in (5, 6):
        round_ = with_limits(Limits(min_cohort=least))
        received = round_.server.roster(round_.device(ME))
        if least == 5:
            round_.members[ME].on_roster(received, round_.clock())
            continue
        with pytest.raises(TaskRefusedError, match="cohort of 5 is too small"):
            round_.members[ME].on_roster(received, round_.clock())


def test_c3_a_cohort_that_hides_among_fewer_than_the_owner_allows_is_refused() -> None:
    for least in (3, 4):
        round_ = with_limits(Limits(hidden_among=least))
        received = round_.server.roster(round_.device(ME))
        if least == 3:
            round_.members[ME].on_roster(received, round_.clock())
            continue
        with pytest.raises(TaskRefusedError, match="hide among 3 devices only"):
            round_.members[ME].on_roster(received, round_.clock())


def test_c3_an_offer_whose_threshold_would_let_both_secrets_out_is_refused() -> None:
    """2t > n + c is the client's own arithmetic; a server that announces t = 3 of 5 gets no shares."""
    round_ = watched()
    rules = CohortRules(
        cohort_min=3, corrupt_fraction=0.1, dropout_fraction=0.3, min_survivors=4, threshold=3, min_cert_age_s=0
    )
    round_.offer = round_.federation.offer(round_.document, round_.clock(), cohort=rules)
    round_.members = [round_.participant(number) for number in range(5)]
    joins = [sent(member.join()) for member in round_.members]
    members = [
        RosterMember(join=join, certificate=round_.federation.proven(device.public))
        for join, device in zip(joins, round_.federation.devices, strict=True)
    ]
    with refused(ProblemType.POLICY_REFUSED) as error:
        show_roster(round_, members)
    assert "2t must exceed" in str(error.value)


def test_another_cohort_number_gives_another_context() -> None:
    """Row 9.1: the same offer serves several cohorts, whose messages must not be taken for one another's."""
    round_ = watched(until="shares", cohorts=2)
    shares = show_roster(round_, members_of(round_), cohort_id=1)
    with refused(ProblemType.BAD_SIGNATURE):
        round_.server.on_shares(shares, round_.clock())


def test_a_cohort_that_was_not_offered_is_refused() -> None:
    round_ = watched(until="shares", cohorts=2)
    with refused(ProblemType.POLICY_REFUSED):
        show_roster(round_, members_of(round_), cohort_id=2)


def test_shares_are_sealed_for_each_peer_and_hashed_for_all() -> None:
    round_ = watched(until="shares")
    shares = decode(Shares, read_envelope(show_roster(round_, members_of(round_)), Kind.SHARES).body)
    assert [len(ciphertext) for ciphertext in shares.ciphertexts] == [80] * 4
    assert [len(leaves) for leaves in shares.leaves] == [64] * 5
    assert len(set(shares.ciphertexts)) == 4
