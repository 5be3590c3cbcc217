"""Round keys: the RFCs' vectors through our wrappers, labels that keep uses apart, keys that are refused."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.secagg import keys
from fedit_protocol.secagg.keys import (
    MaskKey,
    ShareKey,
    SumSecrets,
    check_agreement_key,
    open_share,
    pairwise_seed,
    seal_share,
    self_mask_hash,
    self_mask_seed,
    share_leaf,
)
from fedit_protocol.secagg.shamir import PRIME
from fedit_protocol.signing import SigningKey
from fedit_protocol.testing import seeded_random

from .rounds import refused

CTX, OTHER_CTX = b"c" * 32, b"d" * 32
ANNA, BERT = b"\x01" * 32, b"\x02" * 32

LOW_ORDER = {
    "zero": "0000000000000000000000000000000000000000000000000000000000000000",
    "one": "0100000000000000000000000000000000000000000000000000000000000000",
    "order 8, first": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "order 8, second": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "p - 1": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}
NOT_CANONICAL = {
    "p": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "p + 1": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "the highest bit set": "0900000000000000000000000000000000000000000000000000000000000080",
    "all ones": "ff" * 32,
    "too short": "09" * 31,
    "too long": "09" * 33,
    "empty": "",
}


def draw(seed: str) -> Callable[[int], bytes]:
    return seeded_random(seed)


# --- RFC vectors ----------------------------------------------------------------------------------


def test_key_agreement_is_x25519_of_rfc_7748_section_6_1() -> None:
    alice = MaskKey(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = ShareKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.agree(bob.public).hex() == bob.agree(alice.public).hex() == shared


def test_derivation_is_hkdf_sha256_of_rfc_5869_appendix_a_1() -> None:
    """The library call that `_derive` makes, at the vector's own length; then `_derive` as its first 32 bytes."""
    secret, salt = b"\x0b" * 22, bytes(range(13))
    info = bytes(range(0xF0, 0xFA))
    expected = bytes.fromhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    assert HKDF(SHA256(), length=42, salt=salt, info=info).derive(secret) == expected
    assert keys._derive(secret, salt, info) == expected[:32]


def test_shares_are_sealed_by_chacha20_poly1305_of_rfc_8439_section_2_8_2() -> None:
    key = bytes(range(0x80, 0xA0))
    nonce = bytes.fromhex("070000004041424344454647")
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = ChaCha20Poly1305(key).encrypt(nonce, text, aad)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def test_a_sealed_share_is_that_aead_under_the_derived_key_with_the_context_as_data() -> None:
    """Recomputed by hand from the specification, so that the wrapper cannot drift from it."""
    own, peer = ShareKey.generate(draw("own")), ShareKey.generate(draw("peer"))
    share = bytes(range(64))
    key = HKDF(SHA256(), 32, salt=CTX, info=b"share" + ANNA + BERT).derive(own.agree(peer.public))
    expected = ChaCha20Poly1305(key).encrypt(bytes(12), share, CTX + ANNA + BERT)
    assert seal_share(own, peer.public, CTX, ANNA, BERT, share) == expected


RFC_8032 = {
    "test 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
}


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032.values(), ids=RFC_8032)
def test_identities_are_ed25519_of_rfc_8032_section_7_1(secret: str, public: str, message: str, signature: str) -> None:
    raw = bytes.fromhex(secret)
    assert SigningKey(raw).public.hex() == public
    assert SigningKey(raw).secret_bytes() == raw
    assert Ed25519PrivateKey.from_private_bytes(raw).sign(bytes.fromhex(message)).hex() == signature


# --- what is derived ------------------------------------------------------------------------------


def test_both_ends_of_a_pair_derive_one_seed() -> None:
    anna, bert = MaskKey.generate(draw("anna")), MaskKey.generate(draw("bert"))
    seed = pairwise_seed(anna, bert.public, CTX, ANNA, BERT)
    assert seed == pairwise_seed(bert, anna.public, CTX, BERT, ANNA)
    assert len(seed) == 32


def test_a_seed_serves_one_context_and_one_pair() -> None:
    """One seed under two updates would show the server their difference."""
    anna, bert = MaskKey.generate(draw("anna")), MaskKey.generate(draw("bert"))
    seeds = {
        pairwise_seed(anna, bert.public, CTX, ANNA, BERT),
        pairwise_seed(anna, bert.public, OTHER_CTX, ANNA, BERT),
        pairwise_seed(anna, bert.public, CTX, ANNA, b"\x03" * 32),
        self_mask_seed(b"s" * 32, CTX, ANNA),
        self_mask_seed(b"s" * 32, OTHER_CTX, ANNA),
        self_mask_seed(b"s" * 32, CTX, BERT),
        self_mask_seed(b"t" * 32, CTX, ANNA),
    }
    assert len(seeds) == 7


def test_labels_keep_the_derivations_apart() -> None:
    """The same secret, salt and names give unrelated keys under each label."""
    labels = (keys._PAIRWISE_LABEL, keys._SELF_LABEL, keys._SHARE_LABEL)
    assert len({keys._derive(b"s" * 32, CTX, label + ANNA + BERT) for label in labels}) == 3
    assert not any(a != b and a.startswith(b) for a in labels for b in labels)


def test_the_commitment_to_a_self_mask_is_not_its_seed() -> None:
    secret = b"s" * 32
    assert self_mask_hash(secret) not in (secret, self_mask_seed(secret, CTX, ANNA))
    assert self_mask_hash(secret) != self_mask_hash(b"t" * 32)


def test_a_share_opens_for_its_holder_only_and_unaltered_only() -> None:
    dealer, holder, stranger = (ShareKey.generate(draw(name)) for name in ("dealer", "holder", "stranger"))
    sealed = seal_share(dealer, holder.public, CTX, ANNA, BERT, b"x" * 64)
    assert open_share(holder, dealer.public, CTX, ANNA, BERT, sealed) == b"x" * 64
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    attempts = {
        "another key": (stranger, dealer.public, CTX, ANNA, BERT, sealed),
        "another context": (holder, dealer.public, OTHER_CTX, ANNA, BERT, sealed),
        "sent back to its dealer": (holder, dealer.public, CTX, BERT, ANNA, sealed),
        "another dealer": (holder, dealer.public, CTX, b"\x03" * 32, BERT, sealed),
        "a flipped bit": (holder, dealer.public, CTX, ANNA, BERT, flipped),
        "cut short": (holder, dealer.public, CTX, ANNA, BERT, sealed[:-1]),
        "nothing": (holder, dealer.public, CTX, ANNA, BERT, b""),
    }
    for arguments in attempts.values():
        with refused(ProblemType.BAD_SIGNATURE):
            open_share(*arguments)


def test_a_leaf_hash_names_everything_about_its_share() -> None:
    leaves = {
        share_leaf(CTX, ANNA, BERT, 1, "mask-key", b"x" * 32),
        share_leaf(OTHER_CTX, ANNA, BERT, 1, "mask-key", b"x" * 32),
        share_leaf(CTX, BERT, ANNA, 1, "mask-key", b"x" * 32),
        share_leaf(CTX, ANNA, BERT, 2, "mask-key", b"x" * 32),
        share_leaf(CTX, ANNA, BERT, 1, "self-mask", b"x" * 32),
        share_leaf(CTX, ANNA, BERT, 1, "mask-key", b"y" * 32),
    }
    assert len(leaves) == 6


# --- what is refused and what is hidden -----------------------------------------------------------


@pytest.mark.parametrize("public", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_low_order_key_is_refused_before_and_during_agreement(public: str) -> None:
    raw = bytes.fromhex(public)
    with refused(ProblemType.KEY_REFUSED):
        check_agreement_key(raw)
    with refused(ProblemType.KEY_REFUSED):
        MaskKey.generate(draw("any")).agree(raw)


@pytest.mark.parametrize("public", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_a_key_with_another_encoding_is_refused(public: str) -> None:
    with refused(ProblemType.KEY_REFUSED):
        check_agreement_key(bytes.fromhex(public))


def test_an_ordinary_key_passes() -> None:
    for number in range(20):
        key = ShareKey.generate(draw(f"ordinary {number}"))
        assert check_agreement_key(key.public) == key.public


def test_generated_secrets_can_be_shared() -> None:
    """A mask key's secret bytes and the self mask must both lie below the prime of the sharing."""
    draws = iter([b"\xff" * 32, b"\x11" * 32, PRIME.to_bytes(32, "big"), b"\x22" * 32])
    secrets = SumSecrets.generate(lambda _: next(draws))
    assert secrets.mask_key.secret_bytes() == b"\x11" * 32
    assert secrets.self_mask == b"\x22" * 32


def test_no_key_shows_itself() -> None:
    secret = b"\x11" * 32
    secrets = SumSecrets(MaskKey(secret), b"\x22" * 32)
    for shown in (repr(secrets), repr(secrets.mask_key), str(ShareKey(secret)), repr(SigningKey(secret))):
        assert "11" * 8 not in shown
        assert "22" * 8 not in shown
        assert repr(secret)[2:-1] not in shown
    key = MaskKey(secret)
    assert repr(key) == f"MaskKey(public={key.public.hex()[:8]}…)"


def test_a_share_key_has_no_way_to_give_up_its_secret() -> None:
    assert not hasattr(ShareKey.generate(draw("share")), "secret_bytes")


def test_a_refusal_is_a_security_error() -> None:
    with pytest.raises(SecurityError):
        check_agreement_key(bytes(32))
