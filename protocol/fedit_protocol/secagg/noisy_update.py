"""A clipped update as ring integers with its device's part of the noise (SPEC, section 6; decision 0016)."""

from typing import Final

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.messages import RingSpec
from fedit_protocol.secagg.prg import KeyStream, Words
from fedit_protocol.secagg.quantize import checked_norm, round_into, write_tail
from fedit_protocol.secagg.ring import WEIGHT, levels, word_count, word_type
from fedit_protocol.secagg.sensitivity import norm_bound
from fedit_protocol.secagg.skellam import SkellamStream

_TRIES: Final = 200
"""A rounding is short enough with a probability of at least 0.39: so many fail with one below 10^-42."""

_UINT32: Final = np.dtype("<u4")


def encode_noisy(update: Vector, ring: RingSpec, variance: float, seeds: tuple[bytes, bytes]) -> Words:
    """Return one client's plain ring vector: round(clipped update) + noise, then the weight 1; shape (word_count,).

    The rounding is drawn again until its norm keeps the bound that the accountant counts with (Kairouz, Liu, Steinke
    2021, Definition 4.5). `seeds` are 32 bytes of OS randomness each, for the rounding and for the noise of this
    `variance`. Raises ProtocolError (encoding-refused) like encode_update.
    """
    norm = checked_norm(update, 1, ring)
    scale = min(1.0, ring.clip_norm / norm) if norm else 1.0
    rounding, largest = KeyStream(seeds[0], _UINT32), norm_bound(ring)
    rounded: Words = np.zeros(ring.size, dtype=_UINT32)
    for _ in range(_TRIES):
        round_into(rounded, update, scale / ring.value_range, (levels(ring), 1), rounding)
        values = rounded.view(np.int32).astype(np.int64)
        if int(values @ values) <= largest:
            break
    else:
        raise ProtocolError(ProblemType.ENCODING_REFUSED, "no rounding of the update is short enough", code="T020")
    SkellamStream(variance, seeds[1]).add_to(values)
    words: Words = np.zeros(word_count(ring), dtype=word_type(ring))
    words[: ring.size] = values.astype(words.dtype)  # modulo 2^word_bits
    write_tail(words, {WEIGHT: 1}, ring)
    return words
