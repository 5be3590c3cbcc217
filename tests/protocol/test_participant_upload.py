"""From the sharers to the receipt (SPEC, section 8: C9 to C12): a client masks one update, for one set of sharers."""

from typing import Any

import numpy as np
import pytest

from fedit_protocol.adapter import vector_digest
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import Digest
from fedit_protocol.limits import AnsweredRound, LastSeen
from fedit_protocol.messages import Receipt, Sharers, Survivor, Survivors, UploadHeader
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.context import sum_context
from fedit_protocol.secagg.effects import Persist, Send
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.testing import one_hot_updates

from .adversaries import ME, STRANGER, UPDATE, participant
from .rounds import REPORT, SIZE, WatchedRound, persisted, refused, sent, watched
from .two_sums import factor_updates, two_sums

# --- C9: the sharers ------------------------------------------------------------------------------


def show_sharers(round_: WatchedRound, members: tuple[int, ...]) -> None:
    message = seal(round_.federation.server, Kind.SHARERS, round_.context, Sharers(members=members))
    round_.members[ME].on_sharers(message)


SHARERS = {
    "this device is left out": (0, 1, 3, 4),
    "too few": (1, 2, 3),
    "not sorted": (1, 0, 2, 3, 4),
    "one twice": (0, 1, 2, 2, 3),
    "a stranger": (0, 1, 2, 5),
    "nobody": (),
}


@pytest.mark.parametrize("members", SHARERS.values(), ids=SHARERS)
def test_c9_a_set_of_sharers_is_refused(members: tuple[int, ...]) -> None:
    round_ = watched(until="upload")
    with refused(ProblemType.SURVIVORS_REFUSED):
        show_sharers(round_, members)
    assert round_.members[ME].stage is ClientStage.ACKNOWLEDGED
    with pytest.raises(RuntimeError):
        round_.members[ME].freeze(one_hot_updates(5, SIZE)[ME], 1, REPORT)


def test_c9_there_is_only_one_set_of_sharers_ever() -> None:
    round_ = watched(until="upload")
    show_sharers(round_, (0, 1, 2, 3))
    with pytest.raises(RuntimeError):
        show_sharers(round_, (0, 1, 2, 3, 4))
    assert round_.members[ME]._own_sum().participants == (0, 1, 2, 3)


def test_c9_the_smallest_allowed_set_is_taken() -> None:
    round_ = watched(until="upload")
    show_sharers(round_, (0, 1, 2, 4))
    assert round_.members[ME].stage is ClientStage.READY


def test_two_views_of_the_sharers_give_headers_that_nobody_else_takes() -> None:
    """Row 4: the server tells two halves two sets U2; their headers lie in two contexts, so the evidence fails."""
    round_ = watched(until="upload")
    uploads = []
    for number, member in enumerate(round_.members):
        view = (0, 1, 2, 3, 4) if number < 3 else (0, 1, 2, 3, 4)[1:]
        if number in view:
            member.on_sharers(seal(round_.federation.server, Kind.SHARERS, round_.context, Sharers(members=view)))
            uploads.append((number, sent(member.freeze(one_hot_updates(5, SIZE)[number], 1, REPORT))))
    evidence = tuple(Survivor(member=number, header=header) for number, header in uploads)
    context = sum_context(round_.context, 1, (0, 1, 2, 3, 4))
    lists = seal(round_.federation.server, Kind.SURVIVORS, context, Survivors(sum_index=1, survivors=evidence))
    with refused(ProblemType.BAD_SIGNATURE):
        round_.members[ME].on_survivors(lists)


# --- C10, C11, C12: freezing and the receipt ------------------------------------------------------


def ready(members: int = 5) -> WatchedRound:
    round_ = watched(members, until="upload")
    round_.members[ME].on_sharers(round_.server.sharers(round_.device(ME)))
    return round_


NOT_ENCODABLE: dict[str, tuple[Any, int, ClientReport]] = {
    "a vector of another length": (UPDATE[:-1], 1, REPORT),
    "NaN": (UPDATE * np.float32("nan"), 1, REPORT),
    "a weight of zero": (UPDATE, 0, REPORT),
    "a weight above the maximum": (UPDATE, 16, REPORT),
    "a loss that is not finite": (UPDATE, 1, ClientReport(1, float("inf"), None)),
}


@pytest.mark.parametrize(("update", "weight", "report"), NOT_ENCODABLE.values(), ids=NOT_ENCODABLE)
def test_c10_what_cannot_be_encoded_never_leaves(update: Any, weight: int, report: ClientReport) -> None:
    member = ready().members[ME]
    with refused(ProblemType.ENCODING_REFUSED):
        member.freeze(update, weight, report)


def test_c11_masks_cover_one_update_only() -> None:
    member = ready().members[ME]
    member.freeze(UPDATE, 1, REPORT)
    with pytest.raises(RuntimeError, match="frozen"):
        member.freeze(UPDATE, 1, REPORT)


def test_c11_a_freeze_that_failed_may_not_be_tried_with_other_values() -> None:
    member = ready().members[ME]
    with refused(ProblemType.ENCODING_REFUSED):
        member.freeze(UPDATE, 0, REPORT)
    with pytest.raises(RuntimeError, match="frozen"):
        member.freeze(UPDATE, 1, REPORT)


def test_c11_payload_and_header_are_stored_before_the_first_byte_leaves() -> None:
    round_ = ready()
    update, persist, send = round_.members[ME].freeze(UPDATE, 1, REPORT)
    assert isinstance(update, Persist)
    assert update.record.body.decode() == digest_of(UPDATE.tobytes())
    assert isinstance(persist, Persist)
    assert isinstance(send, Send)
    assert persist.record.kind == "frozen"
    assert persist.record.body == send.envelope
    assert persist.payload == send.payload
    assert send.payload is not None
    header = decode(UploadHeader, read_envelope(send.envelope, Kind.UPLOAD).body)
    assert f"sha256:{header.digest.hex()}" == digest_of(send.payload)
    assert header.length == len(send.payload) == payload_length(round_.server.offer.sums[0].ring)


def test_the_number_of_threads_changes_no_byte_of_an_upload() -> None:
    # Two runs of one round, to the last random byte: a frozen update cannot be frozen again.
    alone, together = (ready().members[ME].freeze(UPDATE, 1, REPORT, threads) for threads in (1, 3))
    assert alone == together


def test_the_payload_is_not_printed() -> None:
    effects = ready().members[ME].freeze(UPDATE, 1, REPORT)
    assert "payload" not in repr(effects)


def test_c12_a_receipt_is_kept_only_for_the_header_that_was_sent() -> None:
    round_ = ready()
    header = sent(round_.members[ME].freeze(UPDATE, 1, REPORT))
    round_.perform(round_.server.on_upload(header, round_.clock()))
    honest = round_.server.receipt(round_.device(ME), 1)
    other = round_.resigned(Kind.RECEIPT, round_.context1, honest, Receipt, header=bytes(32))
    with refused(ProblemType.DIGEST_MISMATCH):
        round_.members[ME].on_receipt(other)
    assert round_.members[ME].stage is ClientStage.FROZEN
    assert persisted(round_.members[ME].on_receipt(honest)) == ["receipt"]


def test_c12_a_receipt_that_the_server_did_not_sign_is_refused() -> None:
    round_ = ready()
    header = sent(round_.members[ME].freeze(UPDATE, 1, REPORT))
    round_.perform(round_.server.on_upload(header, round_.clock()))
    receipt = round_.server.receipt(round_.device(ME), 1)
    for forged in (
        encode(read_envelope(receipt, Kind.RECEIPT).model_copy(update={"signature": bytes(64)})),
        encode(read_envelope(receipt, Kind.RECEIPT).model_copy(update={"signer": STRANGER.public})),
    ):
        with refused(ProblemType.BAD_SIGNATURE):
            round_.members[ME].on_receipt(forged)


# --- C4: what was given before --------------------------------------------------------------------


def ready_after(adapter: Digest, update: Digest) -> WatchedRound:
    """A round whose device ME has answered for that update on that adapter before, up to its upload."""
    round_ = watched()
    earlier = AnsweredRound(adapter, frozenset({b"somebody"}), update)  # type: ignore[arg-type]  # no key is needed
    last = LastSeen(0, 0, digest_of(b"adapter 0"), answered=(earlier,))
    round_.members[ME] = participant(round_.offer, round_.federation, round_, last=last)
    round_.play_until("upload")
    round_.members[ME].on_sharers(round_.server.sharers(round_.device(ME)))
    return round_


def test_c4_an_update_that_was_answered_for_on_this_adapter_is_not_given_again() -> None:
    adapter = digest_of(b"adapter 0")
    round_ = ready_after(adapter, vector_digest(UPDATE))
    with refused(ProblemType.POLICY_REFUSED) as error:
        round_.members[ME].freeze(UPDATE, 1, REPORT)
    assert "given to an earlier round" in str(error.value)
    other = ready_after(adapter, vector_digest(UPDATE)).members[ME]
    assert persisted(other.freeze(2 * UPDATE, 1, REPORT)) == ["update", "frozen"]


def test_c4_the_same_update_on_another_adapter_is_another_one() -> None:
    round_ = ready_after(digest_of(b"another adapter"), vector_digest(UPDATE))
    effects = round_.members[ME].freeze(UPDATE, 1, REPORT)
    assert persisted(effects) == ["update", "frozen"]
    spent = effects[0]
    assert isinstance(spent, Persist)
    assert spent.record.body == vector_digest(UPDATE).encode()


def test_c4_only_the_first_of_two_sums_spends_the_update() -> None:
    round_ = two_sums()
    round_.play_until("upload 2", factor_updates())
    round_.members[ME].on_second_input(round_.server.second_input(round_.device(ME)), *round_.blobs)
    message = round_.message(factor_updates()[ME], 2)
    assert persisted(round_.members[ME].freeze(message, 1, REPORT)) == ["frozen"]
