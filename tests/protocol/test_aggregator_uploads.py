"""Lying uploaders (SPEC, section 8: S4, S5): each set is frozen once, and each upload counts once."""

from typing import Any

import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import UploadHeader
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind

from .adversaries import LIAR, UPDATES, honest_message, liar, unmoved
from .rounds import REPORT, published, refused, resigned, watched

# --- S4: sets are frozen once ---------------------------------------------------------------------


def test_s4_each_set_is_drawn_once_and_its_bytes_never_change() -> None:
    round_ = watched()
    round_.drops = {0: "upload"}
    round_.play_until("unmask")
    documents = published(round_)
    assert documents.keys() == {"roster", "sharers", "survivors 1"}
    for _ in range(2):
        round_.perform(round_.server.tick(round_.clock()))
        for reader in range(1, 5):
            assert round_.server.survivors(round_.device(reader), 1) == documents["survivors 1"]
            assert round_.server.sharers(round_.device(reader)) == documents["sharers"]
        round_.restart_server()
    assert published(round_) == documents


def test_s4_an_upload_after_the_freeze_changes_nothing_even_after_a_crash() -> None:
    round_ = watched(until="upload")
    late = honest_message(round_, Kind.UPLOAD)
    round_.drops = {LIAR: "upload"}
    for number in (0, 1, 2, 4):
        round_.act("upload", number, round_.members[number], UPDATES[number], 1, REPORT)
    round_.settle(Stage.MASKED_UPDATE)
    for _ in range(2):
        unmoved(round_, lambda: round_.server.on_upload(late, round_.clock()), ProblemType.TOO_LATE)
        unmoved(round_, lambda: round_.server.check_upload(late, round_.clock()), ProblemType.TOO_LATE)
        round_.restart_server()


def test_s4_a_retry_of_an_upload_that_counted_is_still_answered_after_the_freeze() -> None:
    round_ = watched(until="unmask")
    header = round_.sent[LIAR][Kind.UPLOAD]
    assert round_.server.check_upload(header, round_.clock()).length > 0
    assert round_.server.on_upload(header, round_.clock()) == ()
    assert round_.server.receipt(round_.device(LIAR), 1) == round_.server.receipt(round_.device(LIAR), 1)


# --- S5: uploads ----------------------------------------------------------------------------------

HEADERS: dict[str, tuple[dict[str, Any], ProblemType]] = {
    "one byte short": ({"length": 25}, ProblemType.MALFORMED),
    "far too long": ({"length": 2**40}, ProblemType.MALFORMED),
    "for the second sum": ({"sum_index": 2}, ProblemType.STAGE_MISMATCH),
}


@pytest.mark.parametrize(("changes", "problem"), HEADERS.values(), ids=HEADERS)
def test_s5_a_header_for_another_payload_is_refused_before_its_body(
    changes: dict[str, Any], problem: ProblemType
) -> None:
    round_ = watched(until="upload")
    honest = honest_message(round_, Kind.UPLOAD)
    envelope = resigned(liar(round_), Kind.UPLOAD, round_.context1, honest, UploadHeader, **changes)
    unmoved(round_, lambda: round_.server.check_upload(envelope, round_.clock()), problem)
    unmoved(round_, lambda: round_.server.on_upload(envelope, round_.clock()), problem)


def test_s5_an_upload_counts_once_and_another_in_its_place_is_a_conflict() -> None:
    round_ = watched(until="upload")
    honest = honest_message(round_, Kind.UPLOAD)
    round_.perform(round_.server.on_upload(honest, round_.clock()))
    assert round_.server.on_upload(honest, round_.clock()) == ()
    assert round_.server.progress["uploaded"] == 1
    other = resigned(liar(round_), Kind.UPLOAD, round_.context1, honest, UploadHeader, digest=bytes(32))
    unmoved(round_, lambda: round_.server.check_upload(other, round_.clock()), ProblemType.CONFLICT)
    unmoved(round_, lambda: round_.server.on_upload(other, round_.clock()), ProblemType.CONFLICT)


def test_s5_there_is_no_receipt_before_the_upload_is_stored() -> None:
    round_ = watched(until="upload")
    header = honest_message(round_, Kind.UPLOAD)
    round_.server.check_upload(header, round_.clock())
    with refused(ProblemType.NOT_READY):
        round_.server.receipt(round_.device(LIAR), 1)
    round_.perform(round_.server.on_upload(header, round_.clock()))
    round_.server.receipt(round_.device(LIAR), 1)
    with refused(ProblemType.NOT_READY):
        round_.server.receipt(round_.device(LIAR), 2)
