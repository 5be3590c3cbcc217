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

from fedit_protocol.encoding import Message, decode, encode
from fedit_protocol.errors import ProtocolError
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.shamir import PRIME, combine

from . import make_vectors
from .make_vectors import FOLDER
from .vector_messages import KINDS

Vector = dict[str, Any]
LISTS = [name for name in make_vectors.FILES if "/" not in name]


def load(name: str) -> list[Vector]:
    vectors: list[Vector] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return vectors


def named(file: str, name: str) -> Vector:
    (vector,) = [vector for vector in load(file) if vector["name"] == name]
    return vector


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("name", make_vectors.FILES)
def test_the_protocol_still_makes_these_bytes(name: str) -> None:
    """If this fails on purpose, the protocol has changed: new version, new vectors, a decision record."""
    assert json.loads(json.dumps(make_vectors.FILES[name]())) == json.loads(
        (FOLDER / f"{name}.json").read_text("utf-8")
    )


def test_no_vector_file_is_forgotten() -> None:
    written = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.json")}
    assert {name for name in written if not name.startswith("published/")} == make_vectors.FILES.keys()


def test_names_are_not_used_twice() -> None:
    for file in LISTS:
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


PARTS = {
    "Answer", "BlobRef", "CanarySlots", "Combination", "CohortRules", "Declaration", "DomainSlots", "InboxItem",
    "IssuedCertificate", "RankBlocks",
    "LoggedEntry",
    "MetricSpec", "NoiseSpec", "PrivacySpent", "QueuedRequest", "RingSpec", "RosterMember", "SealedSpec",
    "StageSeconds", "SumSpec", "SignedFile", "Step", "Survivor", "TaskListing",
}  # fmt: skip
"""What travels inside other messages only."""
NOTES = {"FailureNote", "Lineage", "NoisySum", "Record"}
"""What lies on its author's own disk, or travels as JSON: never as these bytes."""


def test_every_message_of_the_protocol_has_vectors() -> None:
    defined = {kind.__name__ for kind in Message.__subclasses__() if kind.__module__.startswith("fedit_protocol")}
    assert defined - PARTS - NOTES == KINDS.keys()


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
