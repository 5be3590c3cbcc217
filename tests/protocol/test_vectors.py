"""The frozen vectors: regenerated and compared, successes re-encoded, refusals refused, derivations done by hand."""

import hashlib
import hmac
import json
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import Limits
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Compute, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.shamir import PRIME, combine
from fedit_protocol.testing import ManualClock, MemoryFederation, seeded_random

from . import make_vectors
from .make_vectors import FOLDER
from .vector_messages import KINDS

Vector = dict[str, Any]
FILES = ("messages", "contexts", "keys", "masks", "shamir", "keylog", "transcript")


def load(name: str) -> list[Vector]:
    vectors: list[Vector] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return vectors


def named(file: str, name: str) -> Vector:
    (vector,) = [vector for vector in load(file) if vector["name"] == name]
    return vector


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.fixture(scope="module")
def built() -> dict[str, list[Vector]]:
    return make_vectors.build()


@pytest.mark.parametrize("name", FILES)
def test_the_protocol_still_makes_these_bytes(name: str, built: dict[str, list[Vector]]) -> None:
    """If this fails on purpose, the protocol has changed: new version, new vectors, a decision record."""
    assert json.loads(json.dumps(built[name])) == load(name)


def test_no_vector_file_is_forgotten(built: dict[str, list[Vector]]) -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(FILES) == built.keys()


def test_names_are_not_used_twice() -> None:
    for file in FILES:
        names = [vector["name"] for vector in load(file)]
        if file != "messages":
            assert len(set(names)) == len(names), file


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", load("messages"), ids=lambda vector: str(vector["name"]))
def test_messages(vector: Vector) -> None:
    received, kind = raw(vector["bytes"]), KINDS[vector["kind"]]
    if vector["expect"] == "success":
        assert encode(decode(kind, received)) == received
        return
    with pytest.raises(ProtocolError) as refused:
        decode(kind, received)
    assert refused.value.problem == vector["expect"]


def test_every_kind_of_message_has_a_success_and_refusals() -> None:
    found = {(vector["kind"], vector["expect"] == "success") for vector in load("messages")}
    assert found == {(kind, expected) for kind in KINDS for expected in (True, False)}


# --- derivations, by another road than the code's -------------------------------------------------


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes: extract, then one block of expand."""
    key = hmac.digest(salt, secret, "sha256")
    return hmac.digest(key, info + b"\x01", "sha256")


def agree(secret: bytes, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def test_the_hash_of_parts() -> None:
    vector = named("contexts", "H of parts")
    assert h(*(raw(part) for part in vector["parts"])).hex() == vector["digest"]


def test_ctx0_by_hand() -> None:
    vector = named("contexts", "ctx0")
    suite = b"X25519-Ed25519-AES256CTR-CHACHA20POLY1305-SHA256"
    assert h(b"ctx0", b"FedIT-SA/2", suite, raw(vector["offer"])).hex() == vector["context"]


@pytest.mark.parametrize("name", ["ctx", "ctx of cohort 1"])
def test_ctx_by_hand(name: str) -> None:
    vector = named("contexts", name)
    joins = h(*(raw(join) for join in vector["joins"]))
    cohort = vector["cohort_id"].to_bytes(4, "big")
    assert h(b"ctx", raw(vector["ctx0"]), cohort, joins).hex() == vector["context"]


@pytest.mark.parametrize("name", ["ctx_1 of all three", "ctx_1 of two", "ctx_2 with a public input"])
def test_ctx_j_by_hand(name: str) -> None:
    vector = named("contexts", name)
    parts = (bytes([vector["sum_index"]]), bytes(vector["participants"]), raw(vector["public_input"]))
    assert h(b"sum", raw(vector["ctx"]), *parts).hex() == vector["context"]


def test_a_signature_by_hand() -> None:
    vector = named("contexts", "signature")
    body = hashlib.sha256(raw(vector["body"])).digest()
    signed = b"FedIT-SA/2|" + vector["kind"].encode() + b"\x00" + raw(vector["context"]) + body
    assert signed.hex() == vector["signed"]
    Ed25519PublicKey.from_public_bytes(raw(vector["public"])).verify(raw(vector["signature"]), signed)


def test_a_pairwise_seed_by_hand() -> None:
    vector = named("keys", "pairwise seed")
    pair = sorted([raw(vector["own_identity"]), raw(vector["peer_identity"])])
    shared = agree(raw(vector["own_secret"]), raw(vector["peer_public"]))
    assert hkdf(shared, raw(vector["context"]), b"pairmask" + pair[0] + pair[1]).hex() == vector["seed"]
    assert vector["sign"] == (1 if pair[0] == raw(vector["own_identity"]) else -1)


def test_a_self_mask_by_hand() -> None:
    vector = named("keys", "self mask")
    secret = raw(vector["secret"])
    assert hkdf(secret, raw(vector["context"]), b"selfmask" + raw(vector["owner"])).hex() == vector["seed"]
    assert h(b"self-mask", secret).hex() == vector["commitment"]


def test_a_sealed_share_by_hand() -> None:
    vector = named("keys", "sealed share")
    names = raw(vector["dealer"]) + raw(vector["holder"])
    context, share = raw(vector["context"]), raw(vector["share"])
    shared = agree(raw(vector["dealer_secret"]), raw(vector["holder_public"]))
    key = hkdf(shared, context, b"share" + names)
    assert ChaCha20Poly1305(key).encrypt(bytes(12), share, context + names).hex() == vector["sealed"]
    for leaf, role, part in zip(vector["leaves"], (b"mask-key", b"self-mask"), (share[:32], share[32:]), strict=True):
        assert h(b"leaf", context, names[:32], names[32:], b"\x01", role, part).hex() == leaf


@pytest.mark.parametrize("vector", load("masks"), ids=lambda vector: str(vector["name"]))
def test_masks(vector: Vector) -> None:
    expected, seed, offset = raw(vector["bytes"]), raw(vector["seed"]), vector["offset"]
    assert len(expected) == 64
    for word in (np.dtype("<u2"), np.dtype("<u4")):
        stream = KeyStream(seed, word, offset // word.itemsize)
        assert stream.read_into(bytearray(64), 64 // word.itemsize).tobytes() == expected
    counter = (offset // 16).to_bytes(16, "big")
    assert Cipher(algorithms.AES256(seed), modes.CTR(counter)).encryptor().update(bytes(64)) == expected


@pytest.mark.parametrize("vector", load("shamir"), ids=lambda vector: str(vector["name"]))
def test_shamir(vector: Vector) -> None:
    coefficients = [int(value, 16) for value in (vector["secret"], *vector["coefficients"])]
    shares = [raw(share) for share in vector["shares"]]
    for point, share in enumerate(shares, start=1):
        value = sum(coefficient * point**power for power, coefficient in enumerate(coefficients)) % PRIME
        assert int.from_bytes(share, "big") == value
    threshold = vector["threshold"]
    assert combine(dict(enumerate(shares)), threshold).hex() == vector["secret"]


# --- the whole round ------------------------------------------------------------------------------


def test_the_transcript_alone_gives_the_sum() -> None:
    """A server that has only the recorded messages, in their order, reaches the recorded sum."""
    said = {vector["name"]: raw(vector["bytes"]) for vector in load("transcript") if "bytes" in vector}
    expected = load("transcript")[-1]
    federation, clock = MemoryFederation(3, seed="vectors"), ManualClock()
    server = Aggregator(said["offer"], federation.server, clock())
    devices = [device.public for device in federation.devices]
    for number, device in enumerate(devices):
        server.on_join(said[f"join {number}"], federation.proven(device), clock())
    server.tick(clock())
    assert server.roster(devices[0]) == said["roster"]
    for number in range(3):
        server.on_shares(said[f"shares {number}"], clock())
    server.tick(clock())
    for number, device in enumerate(devices):
        assert server.inbox(device) == said[f"inbox {number}"]
        server.on_ack(said[f"ack {number}"], clock())
    server.tick(clock())
    assert server.sharers(devices[0]) == said["sharers"]
    for number, device in enumerate(devices):
        header = server.check_upload(said[f"upload {number}"], clock())
        assert hashlib.sha256(said[f"payload {number}"]).digest() == header.digest
        server.on_upload(said[f"upload {number}"], clock())
        assert server.receipt(device, 1) == said[f"receipt {number}"]
    server.tick(clock())
    assert server.survivors(devices[0], 1) == said["survivors"]
    for number in range(3):
        server.on_unmask(said[f"unmask {number}"], clock())
    (job,) = [effect.job for effect in server.tick(clock()) if isinstance(effect, Compute)]
    payloads = {device: np.frombuffer(said[f"payload {number}"], "<u2") for number, device in enumerate(devices)}
    aggregate = job.run(lambda member, start, stop: payloads[IdentityKey(member)][start:stop])
    assert aggregate.ring_sum.tolist() == expected["ring_sum"]
    assert (aggregate.weight, aggregate.survivors) == (expected["weight"], expected["survivors"])


def test_the_transcripts_sum_is_that_of_its_updates() -> None:
    """Coordinates on the grid are exact; the others are off by less than one level per unit of weight."""
    vector = load("transcript")[-1]
    exact = sum(np.array(update) * weight for update, weight in zip(vector["updates"], vector["weights"], strict=True))
    found = np.array(vector["ring_sum"]) / 127
    assert np.abs(found - exact).max() < sum(vector["weights"]) / 127
    assert vector["ring_sum"][:3] == [127, 254, 15 * 127]
    assert vector["ring_sum"][7] == -18 * 127


def test_a_client_of_the_transcript_says_the_same_words_again() -> None:
    """The client half, replayed from the recorded documents and the same randomness, byte for byte."""
    said = {vector["name"]: raw(vector["bytes"]) for vector in load("transcript") if "bytes" in vector}
    federation, clock = MemoryFederation(3, seed="vectors"), ManualClock()
    member = Participant(
        said["offer"],
        federation.descriptor,
        federation.devices[1],
        Limits(),
        clock(),
        random=seeded_random("member 1"),
    )
    effects = [
        *member.join(),
        *member.on_roster(said["roster"], clock()),
        *member.on_inbox(said["inbox 1"]),
        *member.on_sharers(said["sharers"]),
        *member.freeze(make_vectors.UPDATES[1], make_vectors.WEIGHTS[1], ClientReport(1, 0.0, None)),
        *member.on_receipt(said["receipt 1"]),
        *member.on_survivors(said["survivors"]),
    ]
    messages = [effect for effect in effects if isinstance(effect, Send)]
    kinds = ("join", "shares", "ack", "upload", "unmask")
    assert [message.envelope for message in messages] == [said[f"{kind} 1"] for kind in kinds]
    assert [message.payload for message in messages if message.payload] == [said["payload 1"]]
