"""Round keys and what is derived from them; each role has its own type, so that a wrong key does not type-check.

All live in memory only, for one round. Labels and orders are SPEC, section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.secagg.shamir import random_element

_PAIRWISE_LABEL: Final = b"pairmask"
_SELF_LABEL: Final = b"selfmask"
_SHARE_LABEL: Final = b"share"
_CANARY_LABEL: Final = b"canary"
_DOMAIN_LABEL: Final = b"domain"
_FIELD_PRIME: Final = 2**255 - 19

# The u coordinates of the points, on the curve and its twist, whose order divides 8: with such a key every secret is
# zero. One member could stop every round with one, so a join that carries it is refused.
_LOW_ORDER_U: Final = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
        int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
    }
)

# Each share-channel key encrypts exactly one message, so a constant nonce repeats under no key (RFC 8439, section 4).
_NONCE: Final = bytes(12)


class _AgreementKey:
    """An X25519 private key (RFC 7748) that never shows itself."""

    def __init__(self, secret: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self._secret = secret
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(public={self.public.hex()[:8]}…)"

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> Self:
        """Draw a key whose secret bytes are also a field element, so that they can be shared."""
        return cls(random_element(random))

    def agree(self, peer: bytes) -> bytes:
        """Return the 32-byte shared secret; raises SecurityError (key-refused) if a low-order key forces it to zero."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:  # the library refuses an all-zero result (RFC 7748, section 6.1)
            raise SecurityError(ProblemType.KEY_REFUSED, "a peer's key is of low order") from error


class MaskKey(_AgreementKey):
    """MK: the pairwise masks of one sum. Revealed to the server, by shares, if its owner drops out."""

    def secret_bytes(self) -> bytes:
        """Return the 32 secret bytes, for Shamir sharing and nothing else."""
        return self._secret


class ShareKey(_AgreementKey):
    """CK: the channel that carries shares, and pads over canary losses. Never revealed; another key than MK for that.

    Each peer is agreed with once, though shares go both ways; the agreed secrets die with the key.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(secret)
        self._agreed: dict[bytes, bytes] = {}

    def agree(self, peer: bytes) -> bytes:
        """Return the 32-byte shared secret; raises SecurityError (key-refused) like every agreement."""
        if peer not in self._agreed:
            self._agreed[peer] = super().agree(peer)
        return self._agreed[peer]


@dataclass(frozen=True, repr=False)
class SumSecrets:
    """The secrets of one member for one sum: mask key and self-mask secret (32 bytes). Independent between sums."""

    mask_key: MaskKey
    self_mask: bytes

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> Self:
        """Draw both."""
        return cls(MaskKey.generate(random), random_element(random))


def check_agreement_key(public: bytes) -> bytes:
    """Return an X25519 public key if it is canonical and not of low order; raises SecurityError (key-refused) (C6)."""
    u = int.from_bytes(public, "little")
    if len(public) != 32 or u >= _FIELD_PRIME or u in _LOW_ORDER_U:
        raise SecurityError(ProblemType.KEY_REFUSED, "a round key is not canonical, or of low order")
    return public


def self_mask_hash(secret: bytes) -> bytes:
    """Return the commitment H(b) that stands in the join message."""
    return hash_parts("self-mask", secret)


def pairwise_seed(own: MaskKey, peer_public: bytes, ctx_j: bytes, first: bytes, second: bytes) -> bytes:
    """Derive the 32-byte seed of the mask between two members for one sum with HKDF-SHA256 (RFC 5869, section 2).

    `first` and `second` are the two identity keys in any order. The salt is ctx_j, so no seed serves two rounds, two
    sums or two views of U2: one seed under two updates would show the server their difference.
    """
    info = _PAIRWISE_LABEL + min(first, second) + max(first, second)
    return _derive(own.agree(peer_public), ctx_j, info)


def self_mask_seed(secret: bytes, ctx_j: bytes, owner: bytes) -> bytes:
    """Derive the 32-byte seed of a member's own mask, which guards an upload whose pairs were opened."""
    return _derive(secret, ctx_j, _SELF_LABEL + owner)


def canary_seed(own: ShareKey, peer_public: bytes, ctx_1: bytes, first: bytes, second: bytes) -> bytes:
    """Derive the 32-byte seed of the pad over a canary slot between two members of one class (SPEC, section 16).

    From the share keys, not from the mask keys: no dropout's pads can ever be taken off.
    """
    return _derive(own.agree(peer_public), ctx_1, _CANARY_LABEL + min(first, second) + max(first, second))


def domain_seed(own: ShareKey, peer_public: bytes, ctx_1: bytes, pair: tuple[bytes, bytes], name: str) -> bytes:
    """Derive the 32-byte seed of the pad over a domain's slot between two members that have it (SPEC, section 20).

    `pair` are their two identity keys in any order. Each domain has seeds of its own: one pad never covers two slots.
    """
    return _derive(own.agree(peer_public), ctx_1, _DOMAIN_LABEL + min(pair) + max(pair) + name.encode())


def seal_share(own: ShareKey, peer_public: bytes, ctx: bytes, dealer: bytes, holder: bytes, share: bytes) -> bytes:
    """Encrypt one holder's shares with ChaCha20-Poly1305 (RFC 8439); bound to ctx, dealer and holder."""
    key = _share_channel(own, peer_public, ctx, dealer, holder)
    return ChaCha20Poly1305(key).encrypt(_NONCE, share, ctx + dealer + holder)


def open_share(own: ShareKey, peer_public: bytes, ctx: bytes, dealer: bytes, holder: bytes, sealed: bytes) -> bytes:
    """Decrypt what `seal_share` made; raises SecurityError (bad-signature) if altered or made for another round."""
    key = _share_channel(own, peer_public, ctx, dealer, holder)
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, ctx + dealer + holder)
    except InvalidTag as error:
        raise SecurityError(ProblemType.BAD_SIGNATURE, "a share does not open") from error


def share_leaf(ctx: bytes, dealer: bytes, holder: bytes, sum_index: int, role: str, share: bytes) -> bytes:
    """Return the hash by which the server later recognises a share: `role` is `mask-key` or `self-mask`."""
    return hash_parts("leaf", ctx, dealer, holder, bytes([sum_index]), role, share)


def _share_channel(own: ShareKey, peer_public: bytes, ctx: bytes, dealer: bytes, holder: bytes) -> bytes:
    return _derive(own.agree(peer_public), ctx, _SHARE_LABEL + dealer + holder)


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=salt, info=info).derive(secret)
