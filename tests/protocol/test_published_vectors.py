"""The primitives that we use against the numbers of their standards, and the negatives that others stumbled over.

`protocol/vectors/published/`: RFC 7748, 8032, 5869, 8439, 9180, NIST SP 800-38A; negatives after Wycheproof's classes.
"""

import json
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedit_protocol.enrollment import _HPKE
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.secagg.keys import MaskKey, check_agreement_key
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.signing import SigningKey, check_public_key

from .make_vectors import FOLDER


def load(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((FOLDER / "published" / f"{name}.json").read_text("utf-8"))
    return vectors


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


@pytest.mark.parametrize("vector", load("x25519"), ids=named)
def test_row_22_x25519(vector: dict[str, Any]) -> None:
    """RFC 7748; a key of low order, or in another encoding, is refused before it meets a secret (C6)."""
    if vector["expect"] == "success":
        peer = raw(vector["u"])[:31] + bytes([raw(vector["u"])[31] & 127])
        assert MaskKey(raw(vector["scalar"])).agree(check_agreement_key(peer)).hex() == vector["out"]
        return
    with pytest.raises(SecurityError) as refused:
        check_agreement_key(raw(vector["u"]))
    assert refused.value.problem == vector["expect"] == ProblemType.KEY_REFUSED


def accepts(vector: dict[str, Any]) -> bool:
    """Verify as `signing.verify` does, over the vector's message: key check first, then the library."""
    key = Ed25519PublicKey.from_public_bytes(check_public_key(raw(vector["public"])))
    try:
        key.verify(raw(vector["signature"]), raw(vector["message"]))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("vector", load("ed25519"), ids=named)
def test_row_22_ed25519(vector: dict[str, Any]) -> None:
    """RFC 8032; malleable signatures, and keys of small order whose signatures fit any message, are refused (C6)."""
    if vector["expect"] == ProblemType.KEY_REFUSED:
        with pytest.raises(SecurityError) as refused:
            accepts(vector)
        assert refused.value.problem is ProblemType.KEY_REFUSED
        return
    assert accepts(vector) is (vector["expect"] == "success")
    if "secret" in vector:
        key = SigningKey(raw(vector["secret"]))
        assert key.public.hex() == vector["public"]
        assert key._key.sign(raw(vector["message"])).hex() == vector["signature"]


@pytest.mark.parametrize("vector", load("hkdf-sha256"), ids=named)
def test_hkdf(vector: dict[str, Any]) -> None:
    length = len(raw(vector["okm"]))
    derived = HKDF(SHA256(), length=length, salt=raw(vector["salt"]), info=raw(vector["info"])).derive(
        raw(vector["ikm"])
    )
    assert derived.hex() == vector["okm"]


@pytest.mark.parametrize("vector", load("chacha20-poly1305"), ids=named)
def test_chacha20_poly1305(vector: dict[str, Any]) -> None:
    cipher = ChaCha20Poly1305(raw(vector["key"]))
    parts = raw(vector["nonce"]), raw(vector["sealed"]), raw(vector["aad"])
    if vector["expect"] == "success":
        assert cipher.decrypt(*parts).hex() == vector["plaintext"]
        return
    with pytest.raises(InvalidTag):
        cipher.decrypt(*parts)


@pytest.mark.parametrize("vector", load("hpke"), ids=named)
def test_hpke_has_the_standards_key_schedule(vector: dict[str, Any]) -> None:
    """The library has no door for associated data, which every ciphertext of the RFC carries. So a text sealed under
    the RFC's own key and nonce must open through the library from the RFC's secret, encapsulation and info."""
    text = b"sealed under the key of the RFC"
    sealed = ChaCha20Poly1305(raw(vector["key"])).encrypt(raw(vector["base_nonce"]), text, b"")
    secret = X25519PrivateKey.from_private_bytes(raw(vector["skRm"]))
    assert secret.public_key().public_bytes_raw().hex() == vector["pkRm"]
    assert _HPKE.decrypt(raw(vector["enc"]) + sealed, secret, info=raw(vector["info"])) == text
    with pytest.raises(InvalidTag):
        _HPKE.decrypt(raw(vector["enc"]) + sealed, secret, info=raw(vector["info"]) + b"x")


@pytest.mark.parametrize("vector", load("aes-256-ctr"), ids=named)
@pytest.mark.parametrize("word", ["<u2", "<u4"])
def test_the_mask_generator_is_aes_256_ctr(vector: dict[str, Any], word: str) -> None:
    plaintext, kind = raw(vector["plaintext"]), np.dtype(word)
    start = int(vector["counter"], 16) * 16 // kind.itemsize
    count = len(plaintext) // kind.itemsize
    stream = KeyStream(raw(vector["key"]), kind, start).read_into(bytearray(len(plaintext)), count).tobytes()
    assert bytes(a ^ b for a, b in zip(stream, plaintext, strict=True)).hex() == vector["ciphertext"]
