"""Shamir's scheme over 2**256 - 189: any t shares rebuild, fewer do not, and no share passes for another."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.secagg.shamir import PRIME, combine, is_element, random_element, split
from fedit_protocol.testing import seeded_random

SECRETS = st.integers(0, PRIME - 1).map(lambda value: value.to_bytes(32, "big"))
SEEDS = st.text("abcdefgh", min_size=1, max_size=8)


def is_probably_prime(number: int) -> bool:
    """Miller and Rabin's test with the first forty primes as witnesses."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in (n for n in range(2, 174) if all(n % d for d in range(2, n))):
        power = pow(witness, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def test_the_modulus_is_the_largest_prime_below_two_to_the_256() -> None:
    assert is_probably_prime(PRIME)
    assert not any(is_probably_prime(PRIME + step) for step in range(1, 189))


@settings(deadline=None, max_examples=60)
@given(SECRETS, st.data(), SEEDS)
def test_any_t_shares_rebuild_the_secret(secret: bytes, data: st.DataObject, seed: str) -> None:
    members = data.draw(st.integers(2, 24))
    threshold = data.draw(st.integers(2, members))
    shares = split(secret, threshold, members, seeded_random(seed))
    chosen = data.draw(st.permutations(range(members)))[: data.draw(st.integers(threshold, members))]
    assert combine({member: shares[member] for member in chosen}, threshold) == secret


def test_every_subset_of_a_small_sharing_rebuilds_the_secret() -> None:
    secret = bytes(range(32))
    shares = split(secret, 4, 7, seeded_random("every subset"))
    for chosen in combinations(range(7), 4):
        assert combine({member: shares[member] for member in chosen}, 4) == secret


def line_through(points: dict[int, int], at: int) -> int:
    """Lagrange interpolation, straight from the definition: the oracle of this file."""
    total = 0
    for x, y in points.items():
        numerator = denominator = 1
        for other in points.keys() - {x}:
            numerator, denominator = numerator * (at - other) % PRIME, denominator * (x - other) % PRIME
        total += y * numerator * pow(denominator, -1, PRIME)
    return total % PRIME


@settings(deadline=None, max_examples=40)
@given(SECRETS, SECRETS, st.integers(2, 12), SEEDS)
def test_fewer_than_t_shares_fit_every_secret(secret: bytes, other: bytes, threshold: int, seed: str) -> None:
    """With t - 1 shares, a fitting last share exists for any secret whatever: so they say nothing."""
    shares = split(secret, threshold, threshold, seeded_random(seed))
    few = {member: shares[member] for member in range(threshold - 1)}
    with pytest.raises(ValueError, match="do not reach the threshold"):
        combine(few, threshold)
    points = {member + 1: int.from_bytes(share, "big") for member, share in few.items()}
    last = line_through({0: int.from_bytes(other, "big"), **points}, threshold)
    assert combine({**few, threshold - 1: last.to_bytes(32, "big")}, threshold) == other


@settings(deadline=None, max_examples=40)
@given(SECRETS, st.integers(0, 4), st.integers(1, PRIME - 1), SEEDS)
def test_one_wrong_share_gives_another_secret(secret: bytes, liar: int, shift: int, seed: str) -> None:
    shares = dict(enumerate(split(secret, 5, 5, seeded_random(seed))))
    wrong = (int.from_bytes(shares[liar], "big") + shift) % PRIME
    assert combine({**shares, liar: wrong.to_bytes(32, "big")}, 5) != secret


def test_a_share_counts_for_its_own_member_only() -> None:
    secret = bytes(range(32))
    shares = split(secret, 3, 5, seeded_random("swap"))
    assert combine({0: shares[1], 1: shares[0], 2: shares[2]}, 3) != secret


def test_shares_of_one_secret_differ_from_draw_to_draw_in_every_byte() -> None:
    first = [split(bytes(32), 2, 2, seeded_random(f"draw {n}"))[0] for n in range(64)]
    assert all(len({share[position] for share in first}) > 16 for position in range(32))


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), PRIME.to_bytes(32, "big"), b"\xff" * 32])
def test_what_is_no_field_element_is_not_shared(secret: bytes) -> None:
    assert not is_element(secret)
    with pytest.raises(ValueError, match="not a shareable secret"):
        split(secret, 2, 3, seeded_random("refused"))


@pytest.mark.parametrize(("threshold", "members"), [(1, 3), (0, 3), (4, 3), (-1, 3)])
def test_an_impossible_threshold_is_refused(threshold: int, members: int) -> None:
    with pytest.raises(ValueError, match="impossible threshold"):
        split(bytes(32), threshold, members, seeded_random("refused"))


@pytest.mark.parametrize("share", [b"", bytes(31), bytes(33), PRIME.to_bytes(32, "big"), b"\xff" * 32])
def test_a_share_outside_the_field_is_refused(share: bytes) -> None:
    shares = dict(enumerate(split(bytes(32), 2, 3, seeded_random("outside"))))
    with pytest.raises(ValueError, match="not an element"):
        combine({**shares, 1: share}, 2)


def test_the_largest_and_smallest_elements_are_shareable() -> None:
    for value in (0, 1, PRIME - 1):
        secret = value.to_bytes(32, "big")
        shares = split(secret, 3, 5, seeded_random("edge"))
        assert combine({4: shares[4], 2: shares[2], 0: shares[0]}, 3) == secret


def test_a_random_value_above_the_prime_is_drawn_again() -> None:
    draws = iter([b"\xff" * 32, PRIME.to_bytes(32, "big"), (PRIME - 1).to_bytes(32, "big")])
    assert random_element(lambda _: next(draws)) == (PRIME - 1).to_bytes(32, "big")


def test_the_threshold_of_a_full_cohort_works() -> None:
    secret = seeded_random("secret")(32)[:31] + b"\x01"
    shares = split(secret, 81, 128, seeded_random("cohort"))
    assert combine({member: shares[member] for member in range(47, 128)}, 81) == secret
