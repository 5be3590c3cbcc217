"""The mask generator against NIST's vector, and its promise that position, not call pattern, decides each byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.secagg.prg import BLOCK_BYTES, KeyStream, Words
from fedit_protocol.testing import seeded_random

U16, U32 = np.dtype("<u2"), np.dtype("<u4")
SEED = seeded_random("prg")(32)


def stream(seed: bytes, count: int, word: np.dtype[np.uint16] | np.dtype[np.uint32] = U16, start: int = 0) -> Words:
    return KeyStream(seed, word, start).read_into(bytearray(count * word.itemsize), count).copy()


def test_the_stream_is_nists_aes_256_in_counter_mode() -> None:
    """SP 800-38A, F.5.5, CTR-AES256.Encrypt: keystream = ciphertext xor plaintext, at the vector's own counter."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = int.from_bytes(bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), "big")
    plaintext = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    ciphertext = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    words = stream(key, len(plaintext) // 2, start=counter * 8)  # eight 16-bit words per AES block
    assert bytes(a ^ b for a, b in zip(words.tobytes(), plaintext, strict=True)) == ciphertext


def test_both_word_sizes_read_the_same_bytes() -> None:
    assert stream(SEED, 64, U16).tobytes() == stream(SEED, 32, U32).tobytes()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=12))
def test_the_bytes_do_not_depend_on_how_they_are_asked_for(counts: list[int]) -> None:
    whole = stream(SEED, sum(counts))
    reader, buffer = KeyStream(SEED, U16), bytearray(BLOCK_BYTES)
    pieces = [reader.read_into(buffer, count).copy() for count in counts]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 500), st.sampled_from([U16, U32]))
def test_a_stream_can_start_at_any_block(block: int, word: np.dtype[np.uint16] | np.dtype[np.uint32]) -> None:
    per_block = 16 // word.itemsize
    start = block * per_block
    assert stream(SEED, 40, word, start).tobytes() == stream(SEED, start + 40, word)[start:].tobytes()


@pytest.mark.parametrize(("word", "start"), [(U16, 1), (U16, 7), (U32, 1), (U32, 6)])
def test_a_start_inside_a_block_is_refused(word: np.dtype[np.uint16] | np.dtype[np.uint32], start: int) -> None:
    with pytest.raises(ValueError, match="block boundary"):
        KeyStream(SEED, word, start)


def test_a_full_block_is_read_and_no_more() -> None:
    buffer = bytearray(BLOCK_BYTES)
    assert KeyStream(SEED, U32).read_into(buffer, BLOCK_BYTES // 4).nbytes == BLOCK_BYTES


def test_every_bit_of_the_seed_matters() -> None:
    """The known bug elsewhere: a 32-byte seed folded into 32 bits gives different seeds the same mask."""
    first = stream(SEED, 16).tobytes()
    for bit in range(256):
        other = bytearray(SEED)
        other[bit // 8] ^= 1 << bit % 8
        assert stream(bytes(other), 16).tobytes() != first
    swapped = SEED[4:8] + SEED[:4] + SEED[8:]  # equal under an XOR fold
    assert stream(swapped, 16).tobytes() != first


def test_a_seed_has_32_bytes() -> None:
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="key size"):
            KeyStream(bytes(length), U16)


@pytest.mark.parametrize("word", [U16, U32])
def test_words_are_uniform_over_the_whole_ring(word: np.dtype[np.uint16] | np.dtype[np.uint32]) -> None:
    """χ² over the top eight bits (255 degrees of freedom: 99.999 % lie below 360), each bit near one half."""
    count = 1 << 16
    words = stream(SEED, count, word)
    top = np.bincount((words >> (word.itemsize * 8 - 8)).astype(np.int64), minlength=256)
    assert float(((top - count / 256) ** 2 / (count / 256)).sum()) < 360
    for bit in range(word.itemsize * 8):
        ones = int(((words >> bit) & 1).sum())
        assert abs(ones - count / 2) < 5 * (count / 4) ** 0.5


def test_the_largest_word_occurs() -> None:
    """The known bug elsewhere: randint(0, R - 1) never yields R - 1."""
    words = stream(SEED, 1 << 20)
    assert words.max() == 65535
    assert words.min() == 0


def test_a_read_longer_than_a_block_goes_on_with_the_stream() -> None:
    count = BLOCK_BYTES + 12
    reader, sizes = KeyStream(SEED, U16), (BLOCK_BYTES // 2, BLOCK_BYTES // 2, 12)
    pieces = [reader.read_into(bytearray(BLOCK_BYTES), size).copy() for size in sizes]
    assert np.array_equal(stream(SEED, count, U16), np.concatenate(pieces))
