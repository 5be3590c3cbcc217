"""A second masked sum over the same survivors, which depends on the first (SPEC, section 8): exact, or left out."""

from functools import partial

import numpy as np
import pytest

from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import SecondInput, SecondRule, Survivors, UploadHeader
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Compute, Derive, Effects, Finish, Persist
from fedit_protocol.secagg.keys import pairwise_seed
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import coordinate_count, payload_length
from fedit_protocol.secagg.stages import ClientStage, Stage
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, two_sum_task

from .rounds import REPORT, CrashingRound, WatchedRound, published, refused, watched
from .two_sums import MEMBERS, RANK, TWELVE, M, N, factor_updates, ran, two_sums

SECOND_STEPS = ("upload 2", "unmask 2")


def plain(round_: WatchedRound, sum_index: int, members: set[int]) -> list[int]:
    """Return Σ of these members' plain integers over all coordinates of one sum, computed without any mask."""
    ring = round_.server.offer.sums[sum_index - 1].ring
    vectors = round_.plain if sum_index == 1 else round_.second_plain
    signed = {16: np.int16, 32: np.int32}[ring.word_bits]
    count = coordinate_count(ring)
    total = sum(
        (vectors[number][:count].view(signed).astype(np.int64) for number in members), np.zeros(count, np.int64)
    )
    return [int(value) for value in total]


def integers(aggregate: Aggregate | None) -> list[int]:
    assert aggregate is not None
    return [int(value) for value in aggregate.ring_sum]


def second_of(round_: WatchedRound) -> Aggregate | None:
    assert round_.finish is not None, round_.server.failure
    return round_.finish.second


def test_both_sums_are_exact() -> None:
    round_ = ran()
    size = round_.document.layout.size
    assert integers(round_.aggregate) == plain(round_, 1, TWELVE)[:size]
    assert integers(second_of(round_)) == plain(round_, 2, TWELVE)
    assert round_.server.stage is Stage.DONE
    assert round_.finish is not None
    assert round_.finish.note == ""


def test_the_sketch_comes_out_beside_the_update() -> None:
    round_ = ran()
    assert round_.aggregate is not None
    ring = round_.server.offer.sums[0].ring
    unit = ring.sketch_range / 127
    expected = [value * unit for value in plain(round_, 1, TWELVE)[ring.size :]]
    assert np.allclose(round_.aggregate.sketch, expected)
    assert len(expected) == M * (RANK + 4)


@pytest.mark.parametrize("step", ["join", "shares", "ack", "upload", "unmask"])
def test_who_is_lost_in_the_first_sum_is_in_neither(step: str) -> None:
    round_ = ran({5: step})
    lost = set() if step == "unmask" else {5}
    assert integers(round_.aggregate) == plain(round_, 1, TWELVE - lost)[: round_.document.layout.size]
    assert integers(second_of(round_)) == plain(round_, 2, TWELVE - {5})


def test_the_second_sum_loses_devices_of_its_own() -> None:
    """Two vanish between the sums: their second masks are taken off by shares that nobody has given before."""
    round_ = ran({3: "upload 2", 7: "upload 2", 9: "unmask 2"})
    assert integers(round_.aggregate) == plain(round_, 1, TWELVE)[: round_.document.layout.size]
    assert integers(second_of(round_)) == plain(round_, 2, TWELVE - {3, 7})


@pytest.mark.parametrize("step", SECOND_STEPS)
def test_a_second_sum_that_too_few_join_leaves_the_first(step: str) -> None:
    """Four of twelve vanish: the first sum stands, bit for bit, and the round says why it has no second."""
    round_ = ran(dict.fromkeys(range(5), step))
    assert integers(round_.aggregate) == plain(round_, 1, TWELVE)[: round_.document.layout.size]
    assert second_of(round_) is None
    assert round_.finish is not None
    assert "are needed" in round_.finish.note
    assert round_.server.failure is None


def test_a_second_sum_without_enough_of_the_weight_is_left_out() -> None:
    """Nine of twelve upload twice, but the three that left hold most of the rows."""
    round_ = two_sums(dict.fromkeys(range(3), "upload 2"))
    round_.document = _weighty(round_)
    round_ = WatchedRound(MemoryFederation(MEMBERS), round_.document, round_.drops)
    round_.run(factor_updates(), [4] * 3 + [1] * 9, [REPORT] * MEMBERS)
    assert second_of(round_) is None
    assert round_.finish is not None
    assert round_.finish.note == "the second sum has weight 9 of 21"


def _weighty(round_: WatchedRound) -> TaskDocument:
    task = round_.document.task
    encoding = task.encoding.model_copy(update={"max_weight": 4})
    return round_.document.model_copy(update={"task": task.model_copy(update={"encoding": encoding})})


@pytest.mark.parametrize(("lost", "comes"), [(3, True), (4, False)])
def test_the_second_sum_needs_three_quarters_of_the_first_ones_devices(lost: int, comes: bool) -> None:
    """Nine of twelve, although eight are enough for a first sum of this task."""
    round_ = ran(dict.fromkeys(range(lost), "upload 2"), min_survivors=8)
    assert (second_of(round_) is not None) == comes


def test_the_second_sum_of_the_rule_all_needs_every_device() -> None:
    round_ = two_sums({3: "upload 2"})
    changed = {"second_rule": SecondRule.ALL}
    round_.offer = round_.federation.offer(round_.document, round_.clock(), **changed)
    invited = [device.public for device in round_.federation.devices]
    round_.server = Aggregator(round_.offer, round_.federation.server, round_.clock(), invited)
    round_.members = [round_.participant(number) for number in range(MEMBERS)]
    round_.run(factor_updates(), [1] * MEMBERS, [REPORT] * MEMBERS)
    assert second_of(round_) is None
    assert round_.finish is not None
    assert round_.finish.note == "11 devices uploaded, 12 are needed"


def test_nothing_to_gain_ends_the_round_with_its_first_sum() -> None:
    """Where only A moves, the mean of the products is the product of the means: nobody is asked twice."""
    round_ = two_sums()
    only_a = [np.concatenate([update[: RANK * N], np.zeros(M * RANK, "<f4")]) for update in factor_updates()]
    round_.adapter = np.ones(round_.document.layout.size, "<f4")
    round_.run(only_a, [1] * MEMBERS, [REPORT] * MEMBERS)
    assert round_.finish is not None
    assert (round_.finish.second, round_.finish.note) == (None, "there is nothing to gain by it")
    assert round_.second_sent == {}


def test_a_failure_of_the_second_sum_is_not_one_of_the_round() -> None:
    round_ = two_sums()
    round_.play_until("unmask 2", factor_updates())
    effects = round_.server.fail(ProblemType.INTERNAL, "the disk is full", round_.clock())
    round_.perform((*effects, *round_.server.tick(round_.clock())))
    assert round_.server.failure is None
    assert round_.finish is not None
    assert (round_.finish.second, round_.finish.note) == (None, "the disk is full")


def test_a_second_input_that_never_comes_ends_the_round_with_its_first_sum() -> None:
    class Slow(WatchedRound):
        """Its driver never derives anything."""

        def derive(self, first: Aggregate) -> Effects:
            return ()

    round_ = Slow(MemoryFederation(MEMBERS), two_sum_task(MEMBERS, M, N, RANK))
    round_.play_until("upload 2", factor_updates())
    round_.perform(round_.server.tick(round_.clock()))
    stage = round_.server.stage
    round_.settle(stage)
    assert stage is Stage.SECOND_INPUT
    assert round_.finish is not None
    assert round_.finish.note == "its public input was not ready in time"


def test_who_asks_for_a_second_sum_that_was_given_up_learns_that_it_comes_no_more() -> None:
    """Before it was offered; the documents of the first sum are there as ever."""
    round_ = two_sums()
    only_a = [np.concatenate([update[: RANK * N], np.zeros(M * RANK, "<f4")]) for update in factor_updates()]
    round_.adapter = np.ones(round_.document.layout.size, "<f4")
    round_.run(only_a, [1] * MEMBERS, [REPORT] * MEMBERS)
    reader = round_.device(0)
    assert round_.server.survivors(reader, 1)
    server = round_.server
    for ask in (partial(server.second_input, reader), partial(server.survivors, reader, 2)):
        with refused(ProblemType.TOO_LATE) as error:
            ask()
        assert str(error.value) == "no second sum: there is nothing to gain by it"


def test_a_second_input_that_was_offered_can_be_read_after_its_sum_was_given_up() -> None:
    round_ = two_sums()
    round_.play_until("unmask 2", factor_updates())
    offered = round_.server.second_input(round_.device(0))
    round_.perform(round_.server.fail(ProblemType.INTERNAL, "the disk is full", round_.clock()))
    assert round_.server.second_input(round_.device(0)) == offered


def test_a_round_of_one_sum_has_no_second_input() -> None:
    round_ = watched(until="unmask")
    with refused(ProblemType.STAGE_MISMATCH):
        round_.server.second_input(round_.device(0))
    with refused(ProblemType.STAGE_MISMATCH):
        round_.server.survivors(round_.device(0), 2)


# --- keys and contexts ----------------------------------------------------------------------------


def test_the_two_sums_share_no_secret_and_no_mask() -> None:
    """What opens the first sum says nothing of the second: its keys, seeds and context are its own."""
    round_ = two_sums()
    round_.play_until("unmask 2", factor_updates())
    first, second = round_.server._state.sums
    assert first.context != second.context
    own, peer = round_.members[0], round_.members[1]
    seeds = {
        pairwise_seed(own._secrets[index].mask_key, peer._secrets[other].mask_key.public, context, *_pair(round_))
        for index, other in ((0, 0), (1, 1), (0, 1), (1, 0))
        for context in (first.context, second.context)
    }
    assert len(seeds) == 8
    assert len({secrets.self_mask for member in round_.members for secrets in member._secrets}) == 2 * MEMBERS


def _pair(round_: WatchedRound) -> tuple[IdentityKey, IdentityKey]:
    return round_.device(0), round_.device(1)


def test_an_answer_for_the_first_sum_does_not_serve_the_second() -> None:
    round_ = two_sums()
    round_.play_until("unmask 2", factor_updates())
    first = round_.sent[0][Kind.UNMASK]
    assert round_.server.on_unmask(first, round_.clock()) == ()
    assert round_.server.progress["answered"] == 0


# --- C18 ------------------------------------------------------------------------------------------


def test_c18_other_bytes_than_the_server_signed_are_refused() -> None:
    round_ = two_sums()
    round_.play_until("upload 2", factor_updates())
    member, document = round_.members[0], round_.server.second_input(round_.device(0))
    result, derived = round_.blobs
    for blobs in ((result[:-1] + b"\x00", derived), (result, derived[:-4] + b"\x00\x00\x00\x01")):
        with refused(ProblemType.DIGEST_MISMATCH):
            member.on_second_input(document, *blobs)
    assert member.stage is ClientStage.ANSWERED


def test_c18_two_views_of_the_second_input_give_masks_that_do_not_cancel() -> None:
    """Whoever was shown another input has another context: its header is refused as evidence."""
    round_ = two_sums()
    round_.play_until("upload 2", factor_updates())
    result, derived = round_.blobs
    forged = (np.frombuffer(result, "<f4") + 1).astype("<f4").tobytes()
    member = round_.members[0]
    message = SecondInput(
        result=digest_of(forged), result_bytes=len(forged), input=digest_of(derived), input_bytes=len(derived)
    )
    document = round_.server.second_input(round_.device(0))
    lie = round_.resigned(Kind.SECOND_INPUT, round_.context, document, SecondInput, **message.model_dump())
    member.on_second_input(lie, forged, derived)
    *_, upload = member.freeze(round_.message(factor_updates()[0], 2), 1, REPORT)
    with refused(ProblemType.BAD_SIGNATURE):
        round_.deliver(upload)  # type: ignore[arg-type]


def test_c18_a_round_of_one_sum_has_no_second_to_begin() -> None:
    round_ = watched(until="unmask")
    member = round_.members[0]
    member.on_survivors(round_.server.survivors(round_.device(0), 1))
    with refused(ProblemType.POLICY_REFUSED):
        member.on_second_input(b"", b"", b"")


@pytest.mark.parametrize(("rule", "enough", "too_few"), [(SecondRule.SUBSET, 9, 8), (SecondRule.ALL, 12, 11)])
def test_c18_a_device_counts_the_survivors_of_the_second_sum_itself(
    rule: SecondRule, enough: int, too_few: int
) -> None:
    """Three quarters of twelve, or all of them, although eight are enough for a first sum of this task."""
    round_ = two_sums(min_survivors=8)
    round_.offer = round_.federation.offer(round_.document, round_.clock(), second_rule=rule)
    invited = [device.public for device in round_.federation.devices]
    round_.server = Aggregator(round_.offer, round_.federation.server, round_.clock(), invited)
    round_.members = [round_.participant(number) for number in range(MEMBERS)]
    round_.play_until("unmask 2", factor_updates())
    honest = decode(Survivors, read_envelope(round_.server.survivors(round_.device(0), 2), Kind.SURVIVORS).body)
    context = round_.server._state.sums[1].context
    for count, problem in ((too_few, ProblemType.SURVIVORS_REFUSED), (enough, None)):
        shown = honest.model_copy(update={"survivors": honest.survivors[:count]})
        document = seal(round_.federation.server, Kind.SURVIVORS, context, shown)
        if problem is None:
            round_.members[0].on_survivors(document)
        else:
            with refused(problem):
                round_.members[0].on_survivors(document)


def test_c18_who_did_not_survive_the_first_sum_has_no_part_in_the_second() -> None:
    """Its upload was frozen and came too late: it answers as a dropout, and then stops."""
    round_ = two_sums({0: "upload"})
    round_.play_until("upload", factor_updates())
    late = round_.members[0]
    late.on_sharers(round_.server.sharers(round_.device(0)))
    late.freeze(round_.message(factor_updates()[0], 1), 1, REPORT)
    for step in ("upload", "unmask"):
        for number, member in enumerate(round_.members):
            if round_.is_there(number, step):
                round_.act(step, number, member, factor_updates()[number], 1, REPORT)
        round_.settle(round_.server.stage)
    late.on_survivors(round_.server.survivors(round_.device(0), 1))
    with refused(ProblemType.SURVIVORS_REFUSED):
        late.on_second_input(round_.server.second_input(round_.device(0)), *round_.blobs)


def test_c18_a_second_sum_begins_once() -> None:
    round_ = two_sums()
    round_.play_until("upload 2", factor_updates())
    document = round_.server.second_input(round_.device(0))
    round_.act("upload 2", 0, round_.members[0], factor_updates()[0], 1, REPORT)
    with pytest.raises(RuntimeError):
        round_.members[0].on_second_input(document, *round_.blobs)


def test_c18_the_second_set_of_survivors_needs_three_quarters_of_the_first() -> None:
    round_ = two_sums(dict.fromkeys(range(3), "upload 2"))
    round_.play_until("unmask 2", factor_updates())
    assert round_.members[4]._own_sum().least_survivors == 9
    assert round_.server.progress["survivors"] == 9


def test_c18_an_offer_that_contradicts_itself_about_its_sums_is_refused() -> None:
    round_ = two_sums()
    for changes in ({"second_rule": SecondRule.NONE}, {"sums": round_.server.offer.sums[:1]}):
        round_.offer = round_.federation.offer(round_.document, round_.clock(), **changes)
        with refused(ProblemType.POLICY_REFUSED):
            round_.participant(0)


# --- crashes --------------------------------------------------------------------------------------


def crashed(*crashes: int) -> CrashingRound:
    """Two devices are lost, one per sum; a restart is followed by a tick, so late answers may find a closed stage."""
    drops = {2: "upload", 5: "upload 2"}
    round_ = CrashingRound(MemoryFederation(MEMBERS), two_sum_task(MEMBERS, M, N, RANK), drops)
    round_.crashes = frozenset(crashes)
    round_.run(factor_updates(), [1] * MEMBERS, [REPORT] * MEMBERS)
    return round_


REFERENCE = crashed()


@pytest.mark.parametrize("record", range(40, len(REFERENCE.journal) + 1))
def test_the_same_round_goes_on_after_a_crash_at_any_record_from_the_first_upload_on(record: int) -> None:
    round_ = crashed(record)
    assert published(round_) == published(REFERENCE)
    assert integers(round_.aggregate) == integers(REFERENCE.aggregate)
    assert integers(second_of(round_)) == integers(second_of(REFERENCE))


def test_the_same_round_goes_on_after_a_crash_at_every_record() -> None:
    round_ = crashed(*range(1, len(REFERENCE.journal) + 1))
    assert published(round_) == published(REFERENCE)
    assert integers(second_of(round_)) == integers(second_of(REFERENCE))


def test_a_restart_before_the_second_input_derives_it_again() -> None:
    """Nothing was signed yet, so nobody can have seen another one."""
    round_ = two_sums()
    round_.play_until("unmask", factor_updates())
    for number, member in enumerate(round_.members):
        round_.act("unmask", number, member, factor_updates()[number], 1, REPORT)
    effects = round_.server.tick(round_.clock())
    round_.journal += [effect.record for effect in effects if isinstance(effect, Persist)]
    round_.restart_server()
    (compute,) = round_.server.tick(round_.clock())
    assert isinstance(compute, Compute)
    payloads = round_.payloads
    aggregate = compute.job.run(lambda member, start, stop: payloads[member][start:stop])
    (derive,) = round_.server.on_sum(aggregate, round_.clock())
    assert isinstance(derive, Derive)
    assert not any(isinstance(effect, Finish) for effect in effects)


def test_who_left_the_first_sum_has_no_part_in_the_second() -> None:
    round_ = two_sums({2: "upload"})
    round_.play_until("upload 2", factor_updates())
    ring = round_.server.offer.sums[1].ring
    header = UploadHeader(sum_index=2, length=payload_length(ring), digest=bytes(32))
    envelope = seal(round_.federation.devices[2], Kind.UPLOAD, round_.server._state.sum(2).context, header)
    with refused(ProblemType.NOT_IN_COHORT) as caught:
        round_.server.on_upload(envelope, round_.clock())
    assert str(caught.value) == "this device has no part in sum 2"
