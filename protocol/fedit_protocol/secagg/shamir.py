"""Shamir's secret sharing (Shamir 1979) of 32-byte secrets over the prime field p = 2**256 - 189.

Python integers are not constant time; sharing runs locally, once per round, on fresh secrets (SPEC, section 9).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

PRIME: Final = 2**256 - 189
SECRET_BYTES: Final = 32


def random_element(random: Callable[[int], bytes]) -> bytes:
    """Return 32 uniform bytes that, big-endian, lie below the prime; a value above it (2**-248) is drawn again."""
    while True:
        raw = random(SECRET_BYTES)
        if is_element(raw):
            return raw


def is_element(raw: bytes) -> bool:
    """Say whether these bytes are a secret or a share: 32 of them, big-endian, below the prime."""
    return len(raw) == SECRET_BYTES and int.from_bytes(raw, "big") < PRIME


def split(secret: bytes, threshold: int, members: int, random: Callable[[int], bytes]) -> list[bytes]:
    """Return one 32-byte share per member; member i (0-based) holds the polynomial's value at i + 1.

    Any `threshold` of them rebuild the secret, fewer say nothing. Raises ValueError for a secret that is not an element
    of the field or for 2 ≤ threshold ≤ members not holding.
    """
    if not is_element(secret) or not 2 <= threshold <= members:
        raise ValueError("not a shareable secret, or an impossible threshold")
    constant = int.from_bytes(secret, "big")
    coefficients = [int.from_bytes(random_element(random), "big") for _ in range(threshold - 1)]
    shares = []
    for point in range(1, members + 1):
        value = 0
        for coefficient in reversed(coefficients):
            value = (value + coefficient) * point % PRIME
        shares.append(((value + constant) % PRIME).to_bytes(SECRET_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret behind shares keyed by member (0-based), using the `threshold` lowest members.

    Raises ValueError if there are fewer, or a share is not an element of the field.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares do not reach the threshold of {threshold}")
    members = tuple(sorted(shares)[:threshold])
    if not all(is_element(shares[member]) for member in members):
        raise ValueError("a share is not an element of the field")
    values = [int.from_bytes(shares[member], "big") for member in members]
    row = _lagrange_row(members)
    secret = sum(weight * value for weight, value in zip(row, values, strict=True)) % PRIME
    return secret.to_bytes(SECRET_BYTES, "big")


@lru_cache(maxsize=256)
def _lagrange_row(members: Sequence[int]) -> tuple[int, ...]:
    """The Lagrange coefficients at 0 for the points member + 1; the same survivors rebuild many secrets."""
    points = [member + 1 for member in members]
    row = []
    for point in points:
        numerator = denominator = 1
        for other in points:
            if other != point:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - point) % PRIME
        row.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(row)
