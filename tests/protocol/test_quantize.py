"""float32 → ring integers → float: unbiased, never out of range, exact in the sum, refused when impossible."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import RingSpec
from fedit_protocol.metrics import MAX_EXAMPLES, MAX_LOSS, ClientReport
from fedit_protocol.secagg.prg import KeyStream, Words
from fedit_protocol.secagg.quantize import decode_sum, encode_update, round_into
from fedit_protocol.secagg.ring import check_ring, levels, limb_bits, word_count, word_type
from fedit_protocol.testing import seeded_random

from .rounds import refused
from .test_ring import ring as plain_ring

QUIET = ClientReport(examples=1, train_loss=0.0, held_out_loss=None)


def ring(size: int = 8, **changes: Any) -> RingSpec:
    return plain_ring(size=size).model_copy(update={"clip_norm": 1e6, **changes})


def noise(number: int = 0) -> bytes:
    return seeded_random(f"noise {number}")(32)


def integers(words: Words, spec: RingSpec) -> list[int]:
    """The centred lift of the adapter coordinates."""
    signed = words[: spec.size].astype(np.int64)
    half = 1 << (spec.word_bits - 1)
    return [int(word) - (1 << spec.word_bits) if word >= half else int(word) for word in signed]


def summed(payloads: list[Words], spec: RingSpec) -> Words:
    total = np.zeros(word_count(spec), dtype=word_type(spec))
    for payload in payloads:
        np.add(total, payload, out=total)
    return total


# --- rounding -------------------------------------------------------------------------------------


def test_values_on_the_grid_are_exact() -> None:
    spec = ring(5)
    update = (np.array([-127, -1, 0, 1, 127]) / 127).astype(np.float32)
    assert integers(encode_update(update, 1, QUIET, spec, noise()), spec) == [-127, -1, 0, 1, 127]


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_no_integer_exceeds_the_range_at_its_very_edge(bits: int) -> None:
    """floor(x + U) in float32 exceeds Q at x = r in 0.1 % of draws at 16 bits; none may here."""
    spec = ring(200_000, value_bits=bits, word_bits=32, value_range=0.001953)
    edge = np.float32(0.001953)
    update = np.where(np.arange(spec.size) % 2, edge, -edge).astype(np.float32)
    found = encode_update(update, 1, QUIET, spec, noise())[: spec.size].view(np.int32)
    top = levels(spec)
    assert found.max() <= top
    assert found.min() >= -top
    assert np.abs(found).min() >= top - 1


def test_values_beyond_the_range_are_cut_and_counted() -> None:
    spec = ring(4, value_range=1.0)
    words = encode_update(np.array([5.0, -5.0, 0.0, 0.5], dtype=np.float32), 1, QUIET, spec, noise())
    assert integers(words, spec)[:3] == [127, -127, 0]
    assert decode_sum(words, 1, spec).report.clipped_fraction == 0.5


def test_what_lies_on_the_edge_is_not_counted_as_cut() -> None:
    """Over several blocks of the vector, each with something beyond the edge and something on it."""
    spec = ring(3 * 8192 + 4, value_range=1.0, word_bits=32)
    update = np.tile(np.array([1.0, -1.0, 1.5, -0.25], dtype=np.float32), spec.size // 4)
    words = encode_update(update, 1, QUIET, spec, noise())
    assert decode_sum(words, 1, spec).report.clipped_fraction == 0.25


def test_rounding_is_done_in_double_precision() -> None:
    """At 16 bits a product in float32 is off by up to 0.002 levels: some of 20,000 would round to the other side."""
    spec = ring(20_000, value_bits=16, word_bits=32, value_range=1.0)
    update = np.linspace(-1, 1, spec.size, dtype=np.float32)
    found = encode_update(update, 1, QUIET, spec, noise())[: spec.size].view(np.int32)
    drawn = KeyStream(noise(), np.dtype("<u4")).read_into(bytearray(4 * spec.size), spec.size).astype(np.float64)
    exact = update.astype(np.float64) * levels(spec)
    assert np.array_equal(found, np.floor(exact) + (drawn / 2.0**32 < exact - np.floor(exact)))


class NoChance(KeyStream):
    """Draws 0 every time."""

    def read_into(self, buffer: bytearray, count: int) -> Words:
        return np.zeros(count, dtype=np.uint32)


def test_a_whole_number_stays_what_it_is_whatever_is_drawn() -> None:
    """One more, drawn once in 2^32 coordinates, would leave the range at its edge."""
    words = np.zeros(3, dtype=np.uint32)
    round_into(words, np.array([1.0, -1.0, 0.0], np.float32), 1.0, (127, 1), NoChance(bytes(32), np.dtype("<u4")))
    assert words.view(np.int32).tolist() == [127, -127, 0]


@pytest.mark.parametrize("value", [0.1003, -0.5, 0.0001, 0.9999, -0.25 / 127])
def test_rounding_is_unbiased(value: float) -> None:
    """The mean of m roundings lies within 5 standard errors; one rounding's deviation is at most half a level."""
    count = 400_000
    spec = ring(count)
    update = np.full(count, value, dtype=np.float32)
    found = encode_update(update, 1, QUIET, spec, noise())[:count].view(np.int16)
    exact = float(np.float32(value)) * 127
    assert abs(found.mean() - exact) < 5 * 0.5 / count**0.5
    assert set(np.unique(found)) <= {np.floor(exact), np.floor(exact) + 1}


def test_rounding_differs_between_seeds_and_repeats_under_one() -> None:
    spec = ring(1000)
    update = np.full(1000, 0.3, dtype=np.float32)
    first, again, other = (encode_update(update, 1, QUIET, spec, noise(n)) for n in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_blocks_of_a_long_vector_do_not_share_their_noise() -> None:
    block = 1 << 16
    spec = ring(2 * block)
    words = encode_update(np.full(2 * block, 0.3, dtype=np.float32), 1, QUIET, spec, noise())
    assert not np.array_equal(words[:block], words[block : 2 * block])


def test_the_weight_multiplies_the_rounded_integer() -> None:
    """Weighting before rounding would make 0.3 · 15 something else than 15 times a level."""
    spec = ring(2000)
    words = encode_update(np.full(2000, 0.3, dtype=np.float32), 15, QUIET, spec, noise())
    assert all(value % 15 == 0 for value in integers(words, spec))


def test_a_long_update_is_clipped_to_the_norm_in_its_direction() -> None:
    spec = ring(4, clip_norm=0.5, value_bits=16, word_bits=32)
    update = np.array([3.0, 4.0, 0.0, 0.0], dtype=np.float32)
    aggregate = decode_sum(encode_update(update, 1, QUIET, spec, noise()), 1, spec)
    assert np.allclose(aggregate.total, [0.3, 0.4, 0, 0], atol=1 / 32767)
    assert aggregate.report.clipped_fraction == 1.0


def test_a_short_update_is_not_stretched() -> None:
    spec = ring(4, clip_norm=10.0, value_bits=16, word_bits=32)
    aggregate = decode_sum(encode_update(np.full(4, 0.25, dtype=np.float32), 1, QUIET, spec, noise()), 1, spec)
    assert np.allclose(aggregate.total, 0.25, atol=1 / 32767)
    assert aggregate.report.clipped_fraction == 0.0


def test_zero_stays_zero() -> None:
    spec = ring(8)
    assert integers(encode_update(np.zeros(8, dtype=np.float32), 15, QUIET, spec, noise()), spec) == [0] * 8


# --- refusals -------------------------------------------------------------------------------------

GOOD = np.zeros(8, dtype=np.float32)
REFUSED: dict[str, tuple[Any, int, ClientReport]] = {
    "a vector too short": (GOOD[:7], 1, QUIET),
    "a vector too long": (np.zeros(9, dtype=np.float32), 1, QUIET),
    "a matrix": (GOOD.reshape(2, 4), 1, QUIET),
    "NaN": (np.array([np.nan] + [0] * 7, dtype=np.float32), 1, QUIET),
    "infinity": (np.array([np.inf] + [0] * 7, dtype=np.float32), 1, QUIET),
    "minus infinity": (np.array([-np.inf] + [0] * 7, dtype=np.float32), 1, QUIET),
    "a weight of zero": (GOOD, 0, QUIET),
    "a negative weight": (GOOD, -1, QUIET),
    "a weight above the maximum": (GOOD, 16, QUIET),
    "a loss that is not a number": (GOOD, 1, ClientReport(1, float("nan"), None)),
    "an infinite loss": (GOOD, 1, ClientReport(1, float("inf"), None)),
    "a negative loss": (GOOD, 1, ClientReport(1, -0.1, None)),
    "a held-out loss that is not a number": (GOOD, 1, ClientReport(1, 0.0, float("nan"))),
    "a negative count of examples": (GOOD, 1, ClientReport(-1, 0.0, None)),
}


@pytest.mark.parametrize(("update", "weight", "report"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_encoded_is_an_error_and_no_warning(update: Any, weight: int, report: ClientReport) -> None:
    with refused(ProblemType.ENCODING_REFUSED):
        encode_update(update, weight, report, ring(8), noise())


def test_a_refusal_does_not_say_the_value() -> None:
    with refused(ProblemType.ENCODING_REFUSED) as error:
        encode_update(GOOD, 1, ClientReport(-4711, 0.0, None), ring(8), noise())
    assert "4711" not in str(error.value)


# --- sums -----------------------------------------------------------------------------------------

EXTREMES = [(3, 15, 8), (3, 86, 8), (16, 16, 8), (128, 2, 8), (5, 15, 12), (128, 256, 16), (3, 1024, 16)]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("n", "weight", "bits"), EXTREMES)
def test_a_cohort_of_extremes_decodes_exactly(n: int, weight: int, bits: int, sign: int) -> None:
    word = 16 if n * weight * (2 ** (bits - 1) - 1) < 2**15 else 32
    spec = plain_ring(n, weight, bits, word, size=6).model_copy(update={"clip_norm": 1e6})
    check_ring(spec)
    loud = ClientReport(examples=MAX_EXAMPLES, train_loss=MAX_LOSS, held_out_loss=MAX_LOSS)
    update = np.full(6, sign, dtype=np.float32)
    payloads = [encode_update(update, weight, loud, spec, noise(number)) for number in range(n)]
    aggregate = decode_sum(summed(payloads, spec), n, spec)
    assert aggregate.ring_sum.tolist() == [sign * n * weight * levels(spec)] * 6
    assert aggregate.weight == n * weight
    assert aggregate.total / aggregate.weight == pytest.approx([sign] * 6)
    assert aggregate.report.examples == n * MAX_EXAMPLES
    assert aggregate.report.train_loss == MAX_LOSS
    assert aggregate.report.held_out_loss == MAX_LOSS


def test_every_tail_value_at_its_maximum_recombines_from_all() -> None:
    for n in (3, 16, 64, 128):
        spec = plain_ring(n, 2, 8, 16, size=1).model_copy(update={"clip_norm": 1e-3})
        loud = ClientReport(examples=10**12, train_loss=1e9, held_out_loss=1e9)
        payload = encode_update(np.ones(1, dtype=np.float32), 2, loud, spec, noise())
        assert int(payload[1:].max()) < 1 << limb_bits(spec)
        report = decode_sum(summed([payload] * n, spec), n, spec).report
        assert (report.examples, report.train_loss, report.clipped_fraction) == (n * MAX_EXAMPLES, MAX_LOSS, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_sum_is_that_of_the_plain_integers(data: st.DataObject) -> None:
    n, size = data.draw(st.integers(3, 9)), data.draw(st.integers(1, 20))
    spec = plain_ring(n, 15, 8, 16, size=size).model_copy(update={"clip_norm": 1e6})
    values = st.lists(st.floats(-2, 2, width=32), min_size=size, max_size=size)
    updates = [np.array(data.draw(values), dtype=np.float32) for _ in range(n)]
    weights = [data.draw(st.integers(1, 15)) for _ in range(n)]
    payloads = [
        encode_update(update, weight, QUIET, spec, noise(number))
        for number, (update, weight) in enumerate(zip(updates, weights, strict=True))
    ]
    aggregate = decode_sum(summed(payloads, spec), n, spec)
    columns = zip(*(integers(payload, spec) for payload in payloads), strict=True)
    assert aggregate.ring_sum.tolist() == [sum(column) for column in columns]
    assert (aggregate.weight, aggregate.survivors) == (sum(weights), n)
    error = np.abs(aggregate.total - sum(w * np.clip(u, -1, 1) for w, u in zip(weights, updates, strict=True)))
    assert error.max() <= sum(weights) / levels(spec)


def test_weights_have_an_exactness_of_their_own() -> None:
    """The known bug elsewhere: a secure *weighted* average that was wrong. 1:2:3 of 1, 0, -1 is -2/6."""
    spec = ring(1)
    updates = [np.full(1, value, dtype=np.float32) for value in (1.0, 0.0, -1.0)]
    payloads = [encode_update(update, w, QUIET, spec, noise(w)) for w, update in zip((1, 2, 3), updates, strict=True)]
    aggregate = decode_sum(summed(payloads, spec), 3, spec)
    assert aggregate.ring_sum.tolist() == [-2 * 127]
    assert aggregate.total[0] / aggregate.weight == pytest.approx(-2 / 6)


def test_metrics_are_weighted_means_and_missing_ones_do_not_count() -> None:
    spec = ring(1)
    reports = [ClientReport(10, 1.0, 2.0), ClientReport(20, 2.0, None), ClientReport(30, 3.0, 5.0)]
    payloads = [
        encode_update(np.zeros(1, dtype=np.float32), weight, report, spec, noise(weight))
        for weight, report in zip((1, 2, 3), reports, strict=True)
    ]
    report = decode_sum(summed(payloads, spec), 3, spec).report
    assert report.examples == 60
    assert report.train_loss == pytest.approx((1 + 4 + 9) / 6)
    assert report.held_out_loss == pytest.approx((2 + 15) / 4)


# --- the gates of the result (S8) -----------------------------------------------------------------


def honest(spec: RingSpec, value: float = 0.5) -> Words:
    update = np.full(spec.size, value, dtype=np.float32)
    return summed([encode_update(update, 2, QUIET, spec, noise(number)) for number in range(3)], spec)


def test_an_honest_sum_passes_the_gates() -> None:
    spec = ring(8)
    assert decode_sum(honest(spec), 3, spec).weight == 6


def test_a_sum_whose_weight_is_below_one_per_survivor_is_refused() -> None:
    spec = ring(8)
    with refused(ProblemType.ENCODING_REFUSED) as error:
        decode_sum(honest(spec), 7, spec)
    assert "less than the 7 survivors" in str(error.value)


def test_a_sum_whose_weight_exceeds_the_maximum_is_refused() -> None:
    spec = ring(8)
    words = honest(spec)
    words[8] = 46  # three survivors can weigh 45
    with refused(ProblemType.ENCODING_REFUSED) as error:
        decode_sum(words, 3, spec)
    assert "sum of weight exceeds" in str(error.value)


def test_a_sum_with_an_impossible_metric_is_refused() -> None:
    spec = ring(8)
    words = honest(spec)
    words[-1] = 65535
    with refused(ProblemType.ENCODING_REFUSED) as error:
        decode_sum(words, 3, spec)
    assert "clipped_fraction" in str(error.value)


def test_a_mean_longer_than_the_clip_is_refused() -> None:
    spec = ring(64, clip_norm=0.5)
    honest_sum = honest(spec)
    decode_sum(honest_sum, 3, spec)
    words = honest_sum.copy()
    words[:64] = 6 * 127  # every coordinate of the mean at 1.0: a norm of 8
    with refused(ProblemType.ENCODING_REFUSED) as error:
        decode_sum(words, 3, spec)
    assert "longer than the clip" in str(error.value)


@pytest.mark.parametrize(
    ("survivors", "noise_reach", "longest", "too_long"),
    [
        (1, 0, 91, 92),  # clip 127 steps and √d = 2 of rounding: 91√2 = 128.7 of 129, 92√2 = 130.1
        (2, 4, 188, 189),  # 2 · (127 + 2 · (1 + 4/2)) = 266: 188√2 = 265.9, 189√2 = 267.3
    ],
)
def test_the_mean_may_be_as_long_as_clip_rounding_and_noise_allow(
    survivors: int, noise_reach: int, longest: int, too_long: int
) -> None:
    spec = ring(4, clip_norm=1.0, value_range=1.0)
    for height, passes in ((longest, True), (too_long, False)):
        words = summed([encode_update(np.zeros(4, np.float32), 1, QUIET, spec, noise())] * survivors, spec)
        words[:2] = height
        if passes:
            assert decode_sum(words, survivors, spec, noise=noise_reach).ring_sum.tolist() == [height, height, 0, 0]
        else:
            with refused(ProblemType.ENCODING_REFUSED) as error:
                decode_sum(words, survivors, spec, noise=noise_reach)
            assert (error.value.code, "longer than the clip" in str(error.value)) == ("T020", True)


def test_a_sum_is_the_first_unless_it_is_said_to_be_the_second() -> None:
    spec = ring(8)
    found = decode_sum(honest(spec), 3, spec)
    assert (found.sum_index, decode_sum(honest(spec), 3, spec, 2).sum_index) == (1, 2)
    assert found.ring_sum.dtype == np.dtype(np.int64)


def test_garbage_does_not_pass_the_gates() -> None:
    spec = ring(64, clip_norm=1.0)
    draw = seeded_random("garbage")
    for _ in range(200):
        words = np.frombuffer(draw(2 * word_count(spec)), dtype="<u2").copy()
        with refused(ProblemType.ENCODING_REFUSED):
            decode_sum(words, 3, spec)


def test_an_aggregate_does_not_print_the_vector() -> None:
    spec = ring(8)
    shown = repr(decode_sum(honest(spec), 3, spec))
    assert "ring_sum" not in shown
    assert "total" not in shown
