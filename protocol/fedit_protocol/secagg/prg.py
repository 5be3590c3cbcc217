"""The generator behind every mask: AES-256-CTR keystream read as little-endian words (NIST SP 800-38A, section 6.5)."""

from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.uint16] | NDArray[np.uint32]
"""Ring elements: uint16 or uint32, shape (length,)."""

BLOCK_BYTES: Final = 256 * 1024
"""Work is done in blocks of this size: large enough to amortise the call, small enough for the cache."""

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
        """Return the next `count` words as a view of `buffer`, which they overwrite."""
        length = count * self._word.itemsize
        self._encryptor.update_into(memoryview(_ZEROS)[:length], memoryview(buffer)[:length])
        return np.frombuffer(buffer, dtype=self._word, count=count)  # type: ignore[return-value]  # dtype is one of two
