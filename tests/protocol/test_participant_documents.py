"""Every document of the server (SPEC, section 8: C1): a client takes it whole, of its kind, from the server only."""

from collections.abc import Callable

import pytest

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.signing import Kind, read_envelope

from .adversaries import ME, UPDATE
from .rounds import REPORT, WatchedRound, refused, watched
from .two_sums import factor_updates, two_sums

DOCUMENTS: dict[str, tuple[str, Kind, Callable[[WatchedRound], bytes], Callable[[Participant, bytes], object]]] = {
    "the roster": (
        "shares",
        Kind.ROSTER,
        lambda r: r.server.roster(r.device(ME)),
        lambda member, received: member.on_roster(received, watched().clock()),
    ),
    "the inbox": (
        "ack",
        Kind.INBOX,
        lambda r: r.server.inbox(r.device(ME)),
        lambda member, received: member.on_inbox(received),
    ),
    "the sharers": (
        "upload",
        Kind.SHARERS,
        lambda r: r.server.sharers(r.device(ME)),
        lambda member, received: member.on_sharers(received),
    ),
    "the survivors": (
        "unmask",
        Kind.SURVIVORS,
        lambda r: r.server.survivors(r.device(ME), 1),
        lambda member, received: member.on_survivors(received),
    ),
}


def forgeries(received: bytes, kind: Kind, round_: WatchedRound) -> dict[str, bytes]:
    """The same document, not signed by the server in this round's context."""
    envelope = read_envelope(received, kind)
    if kind is Kind.ROSTER:
        context = round_.context0
    else:
        context = round_.context1 if kind is Kind.SURVIVORS else round_.context
    by_device = round_.federation.devices[0].sign(kind, context, envelope.body)
    elsewhere = round_.federation.server.sign(kind, bytes(32), envelope.body)
    as_receipt = round_.federation.server.sign(Kind.RECEIPT, context, envelope.body)
    return {
        "a peer's signature under the peer's name": encode(
            envelope.model_copy(update={"signer": round_.device(0), "signature": by_device})
        ),
        "a peer's signature under the server's name": encode(envelope.model_copy(update={"signature": by_device})),
        "another context": encode(envelope.model_copy(update={"signature": elsewhere})),
        "another kind of message": encode(envelope.model_copy(update={"signature": as_receipt})),
    }


@pytest.mark.parametrize(("until", "kind", "fetch", "show"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_c1_only_the_server_speaks_for_the_server(
    until: str,
    kind: Kind,
    fetch: Callable[[WatchedRound], bytes],
    show: Callable[[Participant, bytes], object],
) -> None:
    round_ = watched(until=until)
    received = fetch(round_)
    for forged in forgeries(received, kind, round_).values():
        with refused(ProblemType.BAD_SIGNATURE):
            show(round_.members[ME], forged)
    show(round_.members[ME], received)


@pytest.mark.parametrize(("until", "kind", "fetch", "show"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_garbage_in_place_of_a_document_is_refused(
    until: str,
    kind: Kind,
    fetch: Callable[[WatchedRound], bytes],
    show: Callable[[Participant, bytes], object],
) -> None:
    round_ = watched(until=until)
    received = fetch(round_)
    for garbage in (b"", b"\x00", b"\xff" * 40, received[:-1], received + b"\x00", received[: len(received) // 2]):
        with pytest.raises(ProtocolError):
            show(round_.members[ME], garbage)
    show(round_.members[ME], received)


def test_a_document_of_another_kind_is_refused() -> None:
    round_ = watched(until="ack")
    with refused(ProblemType.MALFORMED):
        round_.members[ME].on_inbox(round_.server.roster(round_.device(ME)))


def test_c1_a_peer_cannot_sign_for_the_upload_that_it_never_stored() -> None:
    round_ = watched(until="upload")
    member = round_.members[ME]
    member.on_sharers(round_.server.sharers(round_.device(ME)))
    *_, upload = member.freeze(UPDATE, 1, REPORT)
    assert isinstance(upload, Send)
    round_.deliver(upload)
    honest = round_.server.receipt(round_.device(ME), 1)
    with refused(ProblemType.BAD_SIGNATURE):
        member.on_receipt(by_a_peer(round_, honest, Kind.RECEIPT, round_.context1))
    member.on_receipt(honest)


def test_c1_a_peer_cannot_publish_confirmations() -> None:
    round_ = watched(until="unmask", strict=True)
    member, honest = round_.members[ME], round_.server.confirmations(round_.device(ME), 1)
    with refused(ProblemType.BAD_SIGNATURE):
        member.on_confirmations(by_a_peer(round_, honest, Kind.CONFIRMATIONS, round_.context1))
    assert member.on_confirmations(honest) == member.on_confirmations(honest), "asked again, it says the same"


def test_c1_a_peer_cannot_begin_a_second_sum() -> None:
    round_ = two_sums()
    round_.play_until("upload 2", factor_updates())
    member, honest = round_.members[ME], round_.server.second_input(round_.device(ME))
    with refused(ProblemType.BAD_SIGNATURE):
        member.on_second_input(by_a_peer(round_, honest, Kind.SECOND_INPUT, round_.context), *round_.blobs)
    member.on_second_input(honest, *round_.blobs)


def by_a_peer(round_: WatchedRound, received: bytes, kind: Kind, context: bytes) -> bytes:
    """The same body, signed by a peer under the peer's own name: a signature that verifies."""
    envelope = read_envelope(received, kind)
    peer = round_.federation.devices[0]
    signed = {"signer": peer.public, "signature": peer.sign(kind, context, envelope.body)}
    return encode(envelope.model_copy(update=signed))
