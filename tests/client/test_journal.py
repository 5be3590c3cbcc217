"""What the round journal remembers after any end of the process."""

import hashlib
from pathlib import Path

import pytest

from fedit_client.records.journal import Journal
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import SecurityError, StorageError
from fedit_protocol.ids import RoundId
from fedit_protocol.limits import Limits, check_offer
from fedit_protocol.messages import Offer, UploadHeader
from fedit_protocol.secagg.effects import Persist, Record
from fedit_protocol.secagg.sensitivity import NoisySum
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.testing import ManualClock, MemoryFederation, small_task

NOW = 1_800_000_000


@pytest.fixture
def offer() -> Offer:
    envelope = MemoryFederation(3).offer(small_task(3), ManualClock()())
    return decode(Offer, read_envelope(envelope, Kind.OFFER).body)


def joined() -> Persist:
    return Persist(Record(kind="joined", body=b"round"))


def header() -> bytes:
    """A signed header of the frozen bytes."""
    message = UploadHeader(sum_index=1, length=12, digest=hashlib.sha256(b"masked bytes").digest())
    return seal(SigningKey(bytes(32)), Kind.UPLOAD, bytes(32), message)


def frozen() -> Persist:
    return Persist(Record(kind="frozen", body=header()), b"masked bytes")


def test_a_joined_round_is_remembered_before_anything_is_sent(tmp_path: Path, offer: Offer) -> None:
    Journal(tmp_path).persist(offer, joined(), NOW)
    last = Journal(tmp_path).last
    assert last is not None
    assert (last.round_no, last.adapter_version, last.adapter_digest) == (1, 0, offer.adapter_digest)
    assert Journal(tmp_path).unfinished == ()


def test_each_noisy_sum_is_counted_over_restarts(tmp_path: Path, offer: Offer) -> None:
    one = NoisySum(norm_squared=127**2, size=8, variance=64516.0)
    journal = Journal(tmp_path)
    journal.persist(offer, joined(), NOW)
    for _ in range(2):
        journal.persist(offer, Persist(Record(kind="noise", body=encode(one))), NOW)
    journal.commit(offer, 1, digest_of(b"next"))
    last = Journal(tmp_path).last
    assert last is not None
    assert last.noisy == (one, one)


def test_frozen_bytes_come_back_as_they_were(tmp_path: Path, offer: Offer) -> None:
    journal = Journal(tmp_path)
    journal.persist(offer, joined(), NOW)
    journal.persist(offer, frozen(), NOW)
    (upload,) = Journal(tmp_path).unfinished
    assert (upload.header, upload.payload(), upload.expires_at) == (header(), b"masked bytes", offer.expires_at)


def test_frozen_bytes_that_the_disk_damaged_are_never_sent(tmp_path: Path, offer: Offer) -> None:
    journal = Journal(tmp_path)
    journal.persist(offer, frozen(), NOW)
    (upload,) = journal.unfinished
    upload.path.write_bytes(b"masked byte")
    with pytest.raises(StorageError) as damaged:
        upload.payload()
    assert damaged.value.code == "S014"


@pytest.mark.parametrize("end", ["receipt", "close", "commit"])
def test_an_upload_that_arrived_or_is_over_is_not_sent_again(tmp_path: Path, offer: Offer, end: str) -> None:
    journal = Journal(tmp_path)
    journal.persist(offer, frozen(), NOW)
    match end:
        case "receipt":
            journal.persist(offer, Persist(Record(kind="receipt", body=b"receipt")), NOW)
        case "close":
            journal.close(offer.round_id)
        case _:
            journal.commit(offer, 1, digest_of(b"next"))
    assert Journal(tmp_path).unfinished == ()
    assert list(tmp_path.glob("*.upload")) == [] or end == "receipt"


def test_a_commit_moves_the_chain_on(tmp_path: Path, offer: Offer) -> None:
    journal = Journal(tmp_path)
    journal.persist(offer, joined(), NOW)
    journal.commit(offer, 1, digest_of(b"next"))
    last = Journal(tmp_path).last
    assert last is not None
    assert (last.adapter_version, last.adapter_digest) == (1, digest_of(b"next"))
    assert Journal(tmp_path).rounds == 1


def test_every_torn_last_line_is_forgiven(tmp_path: Path, offer: Offer) -> None:
    journal = Journal(tmp_path)
    journal.persist(offer, joined(), NOW)
    whole = (tmp_path / "rounds.jsonl").read_bytes()
    journal.persist(offer, frozen(), NOW)
    both = (tmp_path / "rounds.jsonl").read_bytes()
    for cut in range(len(whole), len(both), 11):
        (tmp_path / "rounds.jsonl").write_bytes(both[:cut])
        assert Journal(tmp_path).unfinished == ()
        assert (tmp_path / "rounds.jsonl").read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_not_guessed_at(tmp_path: Path, offer: Offer) -> None:
    journal = Journal(tmp_path)
    journal.persist(offer, joined(), NOW)
    journal.persist(offer, frozen(), NOW)
    content = (tmp_path / "rounds.jsonl").read_bytes()
    (tmp_path / "rounds.jsonl").write_bytes(b"x" + content[1:])
    with pytest.raises(StorageError) as told:
        Journal(tmp_path)
    assert told.value.code == "S014"


def answer(journal: Journal, offer: Offer, members: bytes, update: bytes) -> None:
    """What a participant persists on its way to giving shares."""
    for kind, body in (
        ("joined", b""),
        ("members", members),
        ("update", digest_of(update).encode()),
        ("answered", b""),
    ):
        journal.persist(offer, Persist(Record(kind=kind, body=body)), NOW)


def test_c4_an_answered_round_is_remembered_with_its_members_and_its_update(tmp_path: Path, offer: Offer) -> None:
    """Without it a restart would let a server run the same adapter again and again."""
    answer(Journal(tmp_path), offer, b"\x01" * 32 + b"\x02" * 32, b"an update")
    last = Journal(tmp_path).last
    assert last is not None
    (answered,) = last.answered
    assert answered.adapter_digest == offer.adapter_digest
    assert answered.members == {b"\x01" * 32, b"\x02" * 32}
    assert answered.update_digest == digest_of(b"an update")


def test_c4_a_third_round_on_one_adapter_is_refused_after_a_restart(tmp_path: Path) -> None:
    federation, document, now = MemoryFederation(3), small_task(3), ManualClock()()
    for number in (1, 2):
        envelope = federation.offer(document, now, round_no=number, round_id=RoundId(f"{number:032x}"))
        made = decode(Offer, read_envelope(envelope, Kind.OFFER).body)
        answer(Journal(tmp_path), made, b"\x01" * 32, f"update {number}".encode())
    third = decode(Offer, read_envelope(federation.offer(document, now, round_no=3), Kind.OFFER).body)
    with pytest.raises(SecurityError, match="already answered 2 rounds"):
        check_offer(third, federation.descriptor, Limits(), Journal(tmp_path).last, int(now.timestamp()))
    later = third.model_copy(update={"adapter_version": 5, "adapter_digest": digest_of(b"adapter 5")})
    check_offer(later, federation.descriptor, Limits(), Journal(tmp_path).last, int(now.timestamp()))


def test_a_round_that_was_joined_and_not_answered_does_not_count(tmp_path: Path, offer: Offer) -> None:
    Journal(tmp_path).persist(offer, joined(), NOW)
    last = Journal(tmp_path).last
    assert last is not None
    assert last.answered == ()


def test_the_frozen_bytes_of_the_second_sum_take_the_place_of_the_first(tmp_path: Path, offer: Offer) -> None:
    journal = Journal(tmp_path)
    journal.persist(offer, frozen(), NOW)
    journal.persist(offer, Persist(Record(kind="receipt", body=b"receipt")), NOW)
    message = UploadHeader(sum_index=2, length=5, digest=hashlib.sha256(b"again").digest())
    second = seal(SigningKey(bytes(32)), Kind.UPLOAD, bytes(32), message)
    journal.persist(offer, Persist(Record(kind="frozen", body=second), b"again"), NOW)
    (upload,) = Journal(tmp_path).unfinished
    assert (upload.sum_index, upload.payload()) == (2, b"again")
    journal.close(offer.round_id)
    assert list(tmp_path.glob("*.upload")) == []


def test_the_end_of_a_task_is_remembered_until_a_round_of_it_is_joined_after_all(tmp_path: Path, offer: Offer) -> None:
    Journal(tmp_path).end(3, 1)
    Journal(tmp_path).end(3, 1)
    assert Journal(tmp_path).ended == (1, 3)
    assert (tmp_path / "rounds.jsonl").read_text().count("ended") == 1
    Journal(tmp_path).persist(offer, joined(), NOW)
    assert Journal(tmp_path).ended is None
