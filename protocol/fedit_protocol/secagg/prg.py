"""The generator behind every mask: AES-256-CTR keystream read as little-endian words (NIST SP 800-38A, section 6.5)."""

from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.uint16] | NDArray[np.uint32]
"""Ring elements: uint16 or uint32, shape (length,)."""

BLOCK_BYTES: Final = 128 * 1024
"""Work is done in blocks of this size: large enough to amortise the call, small enough that the zeros, the keystream
and the words they go to stay in the cache of one core (256 KiB takes a quarter more time, 64 KiB a little more)."""

_AES_BLOCK: Final = 16
_ZEROS: Final = bytes(BLOCK_BYTES)


class KeyStream:
    """The keystream of one seed, read in order from any word on; each byte is used at most once."""

    def __init__(self, seed: bytes, word: np.dtype[np.uint16] | np.dtype[np.uint32], start: int = 0) -> None:
        """Take a 32-byte seed and the first word to be read, which must lie on a 16-byte boundary."""
        self._word = word
        offset = start * word.itemsize
        if offset % _AES_BLOCK:
            raise ValueError("a key stream starts at a block boundary")
        counter = (offset // _AES_BLOCK).to_bytes(_AES_BLOCK, "big")
        self._encryptor = Cipher(algorithms.AES256(seed), modes.CTR(counter)).encryptor()

    def read_into(self, buffer: bytearray, count: int) -> Words:
        """Return the next `count` words as a view of `buffer`, which they overwrite and which must hold them."""
        self.fill(buffer, count)
        return np.frombuffer(buffer, dtype=self._word, count=count)  # type: ignore[return-value]  # dtype is one of two

    def fill(self, buffer: bytearray, count: int) -> None:
        """Overwrite the beginning of `buffer` with the next `count` words, for a caller that has a view of it."""
        length = count * self._word.itemsize
        if length == len(buffer) == BLOCK_BYTES:  # the usual case, without a slice
            self._encryptor.update_into(_ZEROS, buffer)
        else:
            target = memoryview(buffer)[:length]
            for begin in range(0, length, BLOCK_BYTES):
                piece = target[begin : begin + BLOCK_BYTES]
                self._encryptor.update_into(memoryview(_ZEROS)[: len(piece)], piece)
