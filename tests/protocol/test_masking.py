"""Masks go on and come off without a trace, in any order, in any split of the vector."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.secagg.masking import Mask, apply_masks, pair_sign, read_only
from fedit_protocol.secagg.prg import BLOCK_BYTES, KeyStream
from fedit_protocol.secagg.ranges import ranges, work_in_ranges
from fedit_protocol.testing import seeded_random

SEEDS = [seeded_random(f"masking {number}")(32) for number in range(5)]
WORDS = st.sampled_from(["<u2", "<u4"])


@settings(deadline=None, max_examples=30)
@given(WORDS, st.integers(1, 3000), st.lists(st.sampled_from([1, -1]), min_size=1, max_size=5))
def test_what_is_added_is_taken_off_again(dtype: str, count: int, signs: list[int]) -> None:
    masks = [Mask(seed, sign) for seed, sign in zip(SEEDS, signs, strict=False)]
    words = np.arange(count, dtype=dtype)
    apply_masks(words, masks)
    assert not np.array_equal(words, np.arange(count, dtype=dtype))
    apply_masks(words, [Mask(mask.seed, -mask.sign) for mask in reversed(masks)])
    assert np.array_equal(words, np.arange(count, dtype=dtype))


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_a_mask_is_the_seeds_stream_modulo_the_ring(dtype: str) -> None:
    words = np.full(100, np.iinfo(dtype).max, dtype=dtype)
    apply_masks(words, [Mask(SEEDS[0], 1)])
    stream = KeyStream(SEEDS[0], np.dtype(dtype)).read_into(bytearray(100 * words.itemsize), 100)
    modulus = 1 << (8 * words.itemsize)
    assert [int(word) for word in words] == [(int(word) - 1) % modulus for word in stream]


def test_the_two_copies_of_a_pairs_mask_cancel() -> None:
    low, high = bytes(32), b"\x01" * 32
    assert (pair_sign(low, high), pair_sign(high, low)) == (1, -1)
    mine, theirs = np.zeros(50, dtype="<u2"), np.zeros(50, dtype="<u2")
    apply_masks(mine, [Mask(SEEDS[0], pair_sign(low, high))])
    apply_masks(theirs, [Mask(SEEDS[0], pair_sign(high, low))])
    assert not (mine + theirs).any()


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_a_vector_longer_than_a_block_is_masked_by_one_running_stream(dtype: str) -> None:
    count = BLOCK_BYTES // np.dtype(dtype).itemsize * 2 + 17
    words = np.zeros(count, dtype=dtype)
    apply_masks(words, [Mask(SEEDS[0], 1)])
    whole = KeyStream(SEEDS[0], words.dtype)
    parts = [whole.read_into(bytearray(BLOCK_BYTES), BLOCK_BYTES // words.itemsize).tobytes() for _ in range(3)]
    assert words.tobytes() == b"".join(parts)[: words.nbytes]


@settings(deadline=None, max_examples=25)
@given(WORDS, st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_ranges_masked_apart_equal_the_whole(dtype: str, blocks: list[int]) -> None:
    per_block = 16 // np.dtype(dtype).itemsize
    masks = [Mask(SEEDS[0], 1), Mask(SEEDS[1], -1)]
    whole = np.zeros(sum(blocks) * per_block, dtype=dtype)
    apply_masks(whole, masks)
    start = 0
    for size in blocks:
        part = np.zeros(size * per_block, dtype=dtype)
        apply_masks(part, masks, start)
        assert np.array_equal(part, whole[start : start + len(part)])
        start += len(part)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_threads_change_no_word(dtype: str, threads: int) -> None:
    masks = [Mask(seed, 1 if number % 2 else -1) for number, seed in enumerate(SEEDS)]
    start = 8 * 5
    for count in (1, 17, 9 * BLOCK_BYTES // np.dtype(dtype).itemsize + 3):
        alone, together = np.arange(count).astype(dtype), np.arange(count).astype(dtype)
        apply_masks(alone, masks, start)
        apply_masks(together, masks, start, threads)
        assert np.array_equal(alone, together)


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 40))
def test_ranges_cover_every_word_once(count: int, parts: int, unit: int) -> None:
    found = ranges(count, parts, unit)
    assert [word for start, stop in found for word in range(start, stop)] == list(range(count))
    assert all(start % unit == 0 for start, _ in found)
    assert len(found) <= parts


def test_an_error_in_one_range_is_raised() -> None:
    def work(start: int, _stop: int) -> None:
        if start:
            raise OSError("the payload is gone")

    with pytest.raises(OSError, match="the payload is gone"):
        work_in_ranges(work, 1000, unit=10, threads=2)


def test_a_mask_does_not_show_its_seed() -> None:
    assert SEEDS[0].hex() not in repr(Mask(SEEDS[0], 1))
    assert repr(SEEDS[0]) not in repr(Mask(SEEDS[0], 1))


def test_no_masks_change_nothing() -> None:
    words = np.arange(10, dtype="<u2")
    apply_masks(words, [])
    assert np.array_equal(words, np.arange(10))


def test_words_that_are_shown_cannot_be_changed_through_the_view() -> None:
    words = np.arange(8, dtype="<u2")
    with pytest.raises(ValueError, match="read-only"):
        read_only(words)[0] = 9
    words[0] = 9  # the owner's own array stays writable
