"""Ring words of b bits as bytes and back: word i takes bits i·b to i·b + b - 1 of the payload, least significant first.

Eight words take b whole bytes, so a range that starts at a multiple of eight is read without its neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.secagg.prg import Words

GROUP = 8
"""Words that fill whole bytes together, whatever their width."""


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes `count` words of so many bits take."""
    return -(-count * bits // 8)


def pack(words: Words, bits: int) -> bytes:
    """Return the lowest `bits` of each word, (count,) of uint16 or uint32, one behind the other."""
    count = len(words)
    groups = np.zeros((-(-count // GROUP), GROUP), dtype=np.uint64)
    groups.reshape(-1)[:count] = words
    groups &= np.uint64((1 << bits) - 1)
    packed = np.zeros((len(groups), bits), dtype=np.uint8)
    for place in range(GROUP):
        first, shift = divmod(place * bits, 8)
        shifted = groups[:, place] << np.uint64(shift)
        for step in range(-(-(shift + bits) // 8)):
            packed[:, first + step] |= (shifted >> np.uint64(8 * step)).astype(np.uint8)  # modulo 256
    return packed.reshape(-1)[: packed_bytes(count, bits)].tobytes()


def unpack(packed: NDArray[np.uint8], count: int, bits: int, word: np.dtype[np.uint16] | np.dtype[np.uint32]) -> Words:
    """Return `count` words of so many bits, (count,) of uint16 or uint32; `packed` begins with the first of them."""
    rows = -(-count // GROUP)
    padded = np.zeros(rows * bits, dtype=np.uint8)
    padded[: packed_bytes(count, bits)] = packed[: packed_bytes(count, bits)]
    columns, words = padded.reshape(rows, bits), np.empty((rows, GROUP), dtype=word)
    for place in range(GROUP):
        first, shift = divmod(place * bits, 8)
        value = np.zeros(rows, dtype=np.uint64)
        for step in range(-(-(shift + bits) // 8)):
            value |= columns[:, first + step].astype(np.uint64) << np.uint64(8 * step)
        words[:, place] = (value >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
    return words.reshape(-1)[:count]
