"""A trusted round as two machines play it: who may take part, when it moves on, what a crash leaves."""

from typing import Any

import pytest

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.messages import Abort, Accept, Receipt, UploadHeader
from fedit_protocol.secagg.effects import Persist, Send
from fedit_protocol.secagg.stages import ClientStage, Stage
from fedit_protocol.signing import Kind, SigningKey, seal
from fedit_protocol.task import Mode
from fedit_protocol.testing import seeded_random

from .rounds import REPORT
from .sealing import SealedPlay, envelope_of, one_hot, trusted_federation, trusted_task

STRANGER = SigningKey(seeded_random("stranger")(32))


def played(members: int = 3, **policy: object) -> SealedPlay:
    return SealedPlay(trusted_task(members, 8, **policy), trusted_federation(members))


def refused(play: SealedPlay, problem: ProblemType, action: Any) -> None:
    before, journal = play.server.progress, list(play.journal)
    with pytest.raises(ProtocolError) as error:
        action()
    assert error.value.problem is problem
    assert (play.server.progress, play.journal) == (before, journal)


def test_everybody_uploads_and_the_sum_is_the_weighted_mean_of_all() -> None:
    play = played()
    play.accept(0, 1, 2)
    stages = [play.server.stage]
    for number in range(3):
        play.upload(number, one_hot(number), number + 1)
        assert play.members[number].stage is ClientStage.UPLOADED
        stages.append(play.server.stage)
    assert stages == [Stage.SEALED_UPDATE] * 3 + [Stage.OPEN]
    result = play.open()
    assert result is not None
    assert result.total.tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert (result.weight, result.survivors, result.report.examples) == (6, 3, 30)
    assert play.server.stage is Stage.DONE


def test_who_has_not_uploaded_at_the_deadline_is_left_out() -> None:
    play = played(5, dropout_fraction=0.4)
    play.accept(0, 1, 2, 3, 4)
    for number in (0, 2, 4):
        play.upload(number, one_hot(number))
    assert play.server.stage is Stage.SEALED_UPDATE
    play.tick(3600)
    result = play.open()
    assert result is not None
    assert result.total.tolist() == [1, 0, 1, 0, 1, 0, 0, 0]
    assert result.survivors == 3


def test_a_stage_is_closed_early_with_those_who_came_if_they_are_enough() -> None:
    play = played(5, dropout_fraction=0.4, cohort_min=4)
    play.accept(0, 1, 2)
    refused(play, ProblemType.STAGE_MISMATCH, lambda: play.server.close_stage(play.clock()))
    play.accept(3)
    play.perform(play.server.close_stage(play.clock()))
    for number in (0, 1):
        play.upload(number, one_hot(number))
    refused(play, ProblemType.STAGE_MISMATCH, lambda: play.server.close_stage(play.clock()))
    play.upload(2, one_hot(2))
    play.perform(play.server.close_stage(play.clock()))
    refused(play, ProblemType.STAGE_MISMATCH, lambda: play.server.close_stage(play.clock()))
    result = play.open()
    assert result is not None
    assert (result.survivors, result.total.tolist()) == (3, [1, 1, 1, 0, 0, 0, 0, 0])


def test_who_gives_up_is_not_waited_for() -> None:
    play = played(4, dropout_fraction=0.3)
    play.accept(0, 1, 2, 3)
    for number in (0, 1, 2):
        play.upload(number, one_hot(number))
    abort = seal(play.federation.devices[3], Kind.ABORT, play.context, Abort(problem="H003"))
    play.perform(play.server.on_abort(abort, play.clock()))
    play.tick()
    assert play.server.stage is Stage.OPEN
    assert play.server.on_abort(abort, play.clock()) == ()


def test_a_round_of_one_device_commits() -> None:
    play = played(1, cohort_min=1, cohort_size=1)
    play.accept(0)
    play.upload(0, one_hot(5, 2.0), 3)
    result = play.open()
    assert result is not None
    assert result.total.tolist() == [0, 0, 0, 0, 0, 6, 0, 0]


def test_too_few_who_accept_or_upload_fail_the_round() -> None:
    play = played(4, cohort_min=3)
    play.accept(0, 1)
    play.tick(60)
    assert play.server.failure == (ProblemType.ROUND_FAILED, "2 devices accepted, 3 are needed")
    play = played(3)
    play.accept(0, 1, 2)
    play.upload(0, one_hot(0))
    play.tick(3600)
    assert play.server.failure == (ProblemType.ROUND_FAILED, "1 devices uploaded, 3 are needed")
    refused(play, ProblemType.ROUND_FAILED, lambda: play.server.receipt(play.invited[0], 1))


def test_updates_that_cannot_be_used_do_not_count_and_their_senders_are_named() -> None:
    play = played(3)
    play.accept(0, 1, 2)
    for number in range(3):
        play.upload(number, one_hot(number))
    play.stored[play.invited[1]] = play.stored[play.invited[0]]
    assert play.open() is None
    assert play.server.failure == (ProblemType.ROUND_FAILED, "2 updates can be used, 3 are needed")
    assert list(play.server.blamed) == [play.invited[1]]


@pytest.mark.parametrize("after", range(9))
def test_a_server_that_restarts_after_any_record_goes_on_with_the_same_round(after: int) -> None:
    play = played(3)
    steps = [
        *(lambda number=number: play.accept(number) for number in range(3)),
        *(lambda number=number: play.upload(number, one_hot(number)) for number in range(3)),
        play.restart,
        play.restart,
        play.restart,
    ]
    for count, step in enumerate(steps):
        step()
        if count == after:
            play.restart()
    before = play.open()
    play.restart()  # it died before the result was written: the same again
    again = play.open()
    assert before is not None
    assert again is not None
    assert again.total.tobytes() == before.total.tobytes()
    assert [record.kind for record in play.journal] == ["accept"] * 3 + ["accepted"] + ["upload"] * 3 + ["closed"]


def test_the_same_message_again_is_a_retry_and_another_one_a_conflict() -> None:
    play = played()
    accepted = envelope_of(play.members[0].accept())
    play.perform(play.server.on_accept(accepted, play.clock()))
    assert play.server.on_accept(accepted, play.clock()) == ()
    play.accept(1, 2)
    assert play.server.on_accept(accepted, play.clock()) == ()
    play.upload(0, one_hot(0))
    header = play.headers[0]
    assert play.server.on_upload(header, play.clock()) == ()
    other = UploadHeader(sum_index=1, length=play.server.check_upload(header, play.clock()).length, digest=bytes(32))
    again = seal(play.federation.devices[0], Kind.SEALED_UPLOAD, play.context, other)
    refused(play, ProblemType.CONFLICT, lambda: play.server.on_upload(again, play.clock()))


def test_s5_headers_that_are_turned_away() -> None:
    play = played()
    play.accept(0, 1)
    device, length = play.federation.devices[0], 8 * 4 + 6 * 8 + 48
    good = UploadHeader(sum_index=1, length=length, digest=bytes(32))

    def put(key: SigningKey, header: UploadHeader, context: bytes = b"", kind: Kind = Kind.SEALED_UPLOAD) -> Any:
        envelope = seal(key, kind, context or play.context, header)
        return lambda: play.server.on_upload(envelope, play.clock())

    refused(play, ProblemType.NOT_IN_COHORT, put(STRANGER, good))
    refused(play, ProblemType.NOT_IN_COHORT, put(play.federation.devices[2], good))
    refused(play, ProblemType.BAD_SIGNATURE, put(device, good, bytes(32)))
    refused(play, ProblemType.MALFORMED, put(device, good, kind=Kind.UPLOAD))
    for changes in ({"length": length - 1}, {"length": length + 1}, {"sum_index": 2}):
        refused(play, ProblemType.MALFORMED, put(device, good.model_copy(update=changes)))


def test_nothing_counts_once_the_uploads_are_fixed() -> None:
    play = played(4, dropout_fraction=0.3)
    play.accept(0, 1, 2, 3)
    for number in (0, 1, 2):
        play.upload(number, one_hot(number))
    play.tick(3600)
    frozen = play.members[3].freeze(one_hot(3), 1, REPORT)
    refused(play, ProblemType.TOO_LATE, lambda: play.server.on_upload(envelope_of(frozen), play.clock()))
    refused(play, ProblemType.NOT_READY, lambda: play.server.receipt(play.invited[3], 1))


def test_s2_only_invited_devices_accept_and_only_in_time() -> None:
    play = played()
    stranger = seal(STRANGER, Kind.ACCEPT, play.context, Accept(mode=Mode.TRUSTED))
    refused(play, ProblemType.NOT_IN_COHORT, lambda: play.server.on_accept(stranger, play.clock()))
    other_round = seal(play.federation.devices[0], Kind.ACCEPT, bytes(32), Accept(mode=Mode.TRUSTED))
    refused(play, ProblemType.BAD_SIGNATURE, lambda: play.server.on_accept(other_round, play.clock()))
    play = played(4, cohort_min=1)
    play.accept(0, 1)
    play.tick(60)
    late = envelope_of(play.members[2].accept())
    refused(play, ProblemType.STAGE_MISMATCH, lambda: play.server.on_accept(late, play.clock()))


def test_a_device_seals_one_update_and_accepts_once() -> None:
    play = played()
    member = play.members[0]
    with pytest.raises(RuntimeError):
        member.freeze(one_hot(0), 1, REPORT)
    joined, accepted = member.accept()
    assert isinstance(joined, Persist)
    assert isinstance(accepted, Send)
    assert (joined.record.kind, accepted.kind) == ("joined", Kind.ACCEPT)
    with pytest.raises(RuntimeError):
        member.accept()
    kept, sent = member.freeze(one_hot(0), 1, REPORT)
    assert isinstance(kept, Persist)
    assert isinstance(sent, Send)
    assert (kept.record.body, kept.payload) == (sent.envelope, sent.payload)  # persisted before it is sent
    with pytest.raises(RuntimeError):
        member.freeze(one_hot(0), 1, REPORT)
    member.wipe()
    assert member.stage is ClientStage.WIPED


def test_c12_a_receipt_for_something_else_is_refused() -> None:
    play = played()
    play.accept(0, 1, 2)
    play.members[0].freeze(one_hot(0), 1, REPORT)
    for key, context, header, problem in (
        (play.federation.server, play.context, bytes(32), ProblemType.DIGEST_MISMATCH),
        (STRANGER, play.context, bytes(32), ProblemType.BAD_SIGNATURE),
        (play.federation.server, bytes(32), bytes(32), ProblemType.BAD_SIGNATURE),
    ):
        forged = seal(key, Kind.RECEIPT, context, Receipt(header=header))
        with pytest.raises(SecurityError) as error:
            play.members[0].on_receipt(forged)
        assert error.value.problem is problem


def test_the_update_is_nowhere_in_what_travels_or_is_persisted() -> None:
    play = played()
    play.accept(0, 1, 2)
    canary = one_hot(4, 1.2345679)
    play.upload(0, canary)
    seen = b"".join([*play.stored.values(), *play.headers.values(), *(encode(record) for record in play.journal)])
    assert canary[4:5].tobytes() not in seen
