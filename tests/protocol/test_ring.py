"""Which ring a round sums in: the bit formula's table, word widths, limbs, payload lengths."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.errors import ConfigError
from fedit_protocol.messages import RingSpec
from fedit_protocol.metrics import metric_specs
from fedit_protocol.secagg.ring import (
    as_words,
    check_ring,
    cohort_rules,
    levels,
    limb_bits,
    limb_count,
    needed_bits,
    payload_length,
    ring_spec,
    tail_specs,
    word_count,
    word_type,
)
from fedit_protocol.task import Task, TaskDocument
from fedit_protocol.task_tables import EncodingSpec
from fedit_protocol.testing import small_task

# (value bits, largest weight) → bits for n = 3, 8, 16, 32, 64, 128
BITS = {
    (8, 1): (10, 11, 12, 13, 14, 15),
    (8, 15): (14, 15, 16, 17, 18, 19),
    (12, 1): (14, 15, 16, 17, 18, 19),
    (12, 15): (18, 19, 20, 21, 22, 23),
    (16, 1): (18, 19, 20, 21, 22, 23),
    (16, 15): (22, 23, 24, 25, 26, 27),
}
COHORTS = (3, 8, 16, 32, 64, 128)


def ring(n: int = 5, weight: int = 15, bits: int = 8, word: int = 16, size: int = 8) -> RingSpec:
    return RingSpec(
        size=size,
        clip_norm=1.0,
        value_bits=bits,
        value_range=1.0,
        max_weight=weight,
        cohort_max=n,
        word_bits=16 if word == 16 else 32,
        metrics=metric_specs(weight),
    )


def task_of(n: int, weight: int, bits: int) -> Task:
    document = small_task(n)
    encoding = EncodingSpec(value_range=1.0, max_weight=weight, value_bits=bits)
    return document.task.model_copy(update={"encoding": encoding})


@pytest.mark.parametrize("key", BITS, ids=lambda key: f"q={key[0]}, w_max={key[1]}")
def test_the_width_follows_the_formula(key: tuple[int, int]) -> None:
    bits, weight = key
    assert tuple(needed_bits(n, weight, bits) for n in COHORTS) == BITS[key]


def test_noise_widens_the_ring_by_what_it_may_add() -> None:
    assert needed_bits(3, 1, 4, 10) == 6  # 2 · (3 · 7 + 10) + 1 = 63 values
    assert needed_bits(3, 1, 4, 11) == 7


def test_a_ring_of_32_bits_is_still_a_ring() -> None:
    assert needed_bits(64, 1024, 16) == 32
    assert ring_spec(task_of(64, 1024, 16), 8).word_bits == 32


def test_the_width_is_exactly_enough() -> None:
    """±n·w·Q and everything between must have values of their own modulo 2**b; with b - 1 bits they do not."""
    for n, weight, bits in product(range(3, 129), (1, 2, 15, 256, 1024), range(4, 17)):
        largest = n * weight * (2 ** (bits - 1) - 1)
        width = needed_bits(n, weight, bits)
        assert 2 * largest + 1 <= 2**width
        assert 2 * largest + 1 > 2 ** (width - 1)


def test_the_largest_weights_of_the_narrow_ring_at_eight_bits() -> None:
    for n, largest in zip(COHORTS, (86, 32, 16, 8, 4, 2), strict=True):
        check_ring(ring(n, largest))
        with pytest.raises(ConfigError, match="too narrow") as error:
            check_ring(ring(n, largest + 1))
        assert error.value.code == "C021"


def test_a_ring_one_bit_too_narrow_is_refused_and_a_wider_one_is_not() -> None:
    with pytest.raises(ConfigError, match="too narrow"):
        check_ring(ring(128, 15, 8, 16))
    check_ring(ring(128, 15, 8, 32))
    with pytest.raises(ConfigError, match="too narrow"):
        check_ring(ring(128, 1024, 16, 32))


@pytest.mark.parametrize(
    ("n", "weight", "bits", "word"), [(3, 15, 8, 16), (17, 15, 8, 16), (18, 15, 8, 32), (128, 256, 16, 32)]
)
def test_a_task_gets_the_narrowest_word(n: int, weight: int, bits: int, word: int) -> None:
    found = ring_spec(task_of(n, weight, bits), 100)
    assert found.word_bits == word
    assert (found.size, found.cohort_max, found.max_weight, found.value_bits) == (100, n, weight, bits)
    check_ring(found)


def test_a_task_that_no_ring_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="32 is the widest") as error:
        ring_spec(task_of(128, 1024, 16), 8)
    assert error.value.code == "C021"


@pytest.mark.parametrize(("n", "bits"), [(3, 14), (16, 12), (64, 10), (128, 9)])
def test_limbs_of_the_narrow_ring(n: int, bits: int) -> None:
    assert limb_bits(ring(n)) == bits


@pytest.mark.parametrize("word", [16, 32])
def test_limbs_of_a_full_cohort_never_overflow_and_waste_no_bit(word: int) -> None:
    for n in range(3, 129):
        bits = limb_bits(ring(n, word=word))
        assert n * (2**bits - 1) < 2**word
        assert n * (2 ** (bits + 1) - 1) >= 2**word


@settings(deadline=None, max_examples=100)
@given(st.integers(3, 128), st.integers(1, 2**48 - 1), st.sampled_from([16, 32]))
def test_limbs_hold_every_value_up_to_the_maximum(n: int, maximum: int, word: int) -> None:
    spec = ring(n, word=word)
    count, bits = limb_count(spec, maximum), limb_bits(spec)
    assert maximum < 1 << (bits * count)
    assert maximum >= 1 << (bits * (count - 1))


def test_the_tail_is_the_weight_and_then_the_metrics_in_order() -> None:
    names = [spec.name for spec in tail_specs(ring())]
    assert names == ["weight", "examples", "train_loss", "held_out_loss", "held_out_weight", "clipped_fraction"]


def test_a_payloads_length_depends_on_the_task_only() -> None:
    spec = ring(16, 15)
    tail = sum(limb_count(spec, item.maximum) for item in tail_specs(spec))
    assert word_count(spec) == 8 + tail
    assert payload_length(spec) == 2 * word_count(spec)
    assert payload_length(ring(16, 15, 8, 32)) == 4 * word_count(ring(16, 15, 8, 32))


def test_a_million_parameters_cost_two_bytes_each() -> None:
    spec = ring(100, 2, 8, 16, size=1_048_576)
    check_ring(spec)
    assert payload_length(spec) / spec.size <= 2.01


def test_words_are_read_little_endian_and_without_a_copy() -> None:
    payload = bytes([1, 0, 0, 1])
    assert as_words(payload, ring(word=16)).tolist() == [1, 256]
    assert as_words(payload, ring(word=32)).tolist() == [1 + (1 << 24)]
    assert word_type(ring(word=16)).str in ("<u2", "=u2")
    assert not as_words(payload, ring()).flags.owndata


@pytest.mark.parametrize(("bits", "top"), [(4, 7), (8, 127), (12, 2047), (16, 32767)])
def test_levels_are_symmetric(bits: int, top: int) -> None:
    assert levels(ring(bits=bits)) == top


def test_the_cohort_rules_are_the_tasks() -> None:
    document: TaskDocument = small_task(7, cohort_min=4, corrupt_fraction=0.2, min_survivors=6, threshold=5)
    rules = cohort_rules(document.task)
    assert cohort_rules(small_task(min_cert_age_h=24).task).min_cert_age_s == 86_400
    assert (rules.cohort_min, rules.corrupt_fraction, rules.min_survivors, rules.threshold) == (4, 0.2, 6, 5)
    assert rules.dropout_fraction == document.task.round.dropout_fraction
