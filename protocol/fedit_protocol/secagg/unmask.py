"""From survivors' payloads and shares to the sum: rebuild seeds, add payloads, take masks off (SPEC, section 8).

One pass over the vector, block by block: memory is one vector and one block per thread, however many members and masks
there are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Final

import numpy as np

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import RingSpec
from fedit_protocol.metrics import Unknown
from fedit_protocol.secagg.keys import MaskKey, pairwise_seed, self_mask_hash, self_mask_seed
from fedit_protocol.secagg.masking import Mask, MaskStreams, pair_sign
from fedit_protocol.secagg.prg import BLOCK_BYTES, Words
from fedit_protocol.secagg.quantize import Aggregate, decode_sum
from fedit_protocol.secagg.ranges import work_in_ranges
from fedit_protocol.secagg.ring import word_count, word_type
from fedit_protocol.secagg.shamir import combine, is_element
from fedit_protocol.task import Quantization

Reader = Callable[[IdentityKey, int, int], Words]
"""read(member, start, stop) → the stored payload's ring words in that range; called from several threads at once."""

_MAX_SUBSETS: Final = 512
"""How many share subsets are tried before a dealer is given up (S7)."""


class WrongSharesError(ProtocolError):
    """A dealer's signed shares do not rebuild the secret that it announced (S7)."""

    def __init__(self, dealer: IdentityKey) -> None:
        super().__init__(ProblemType.ROUND_FAILED, f"the shares dealt by {dealer.hex()[:8]} do not rebuild its secret")
        self.dealer = dealer
        """Whom later rounds should leave out; the evidence is its own signed messages."""


@dataclass(frozen=True)
class MemberKeys:
    """What a member made public for one sum when it joined."""

    identity: IdentityKey
    mask_public: bytes
    self_mask_hash: bytes


@dataclass(frozen=True)
class UnmaskJob:
    """All that the sum needs; holds secrets, so it is built when enough shares are in and dropped after `run`."""

    ring: RingSpec
    context: bytes
    threshold: int
    sum_index: int
    survivors: tuple[MemberKeys, ...]
    dropouts: tuple[MemberKeys, ...]
    shares: Mapping[IdentityKey, Mapping[int, bytes]] = field(repr=False)
    """Sharer → holder's roster index → share: of its self mask if it survived, of its mask key if it dropped out."""
    noise: int = 0
    """How far the devices' noise may move a coordinate of the sum, in ring steps."""
    canary: Mapping[Quantization, int | Unknown] = field(default_factory=dict)
    """Base class → how many devices' canary losses its slot holds, or why it must not be read."""
    domains: Mapping[str, int | Unknown] = field(default_factory=dict)
    """The same of each domain's slot."""

    def run(self, read: Reader, threads: int = 1) -> Aggregate:
        """Return the aggregate; CPU-bound, so call it in a thread, and let it use `threads` of its own.

        Raises WrongSharesError if a secret cannot be rebuilt (S7), ProtocolError (encoding-refused) if the sum is not
        one that honest clients can produce (S8).
        """
        total = self.sum_words(read, threads)
        return decode_sum(total, len(self.survivors), self.ring, self.sum_index, self.noise, self.canary, self.domains)

    def sum_words(self, read: Reader, threads: int = 1) -> Words:
        """Return the unmasked ring sum of the survivors' whole payloads, tail included."""
        masks, count = self._masks(), word_count(self.ring)
        total: Words = np.zeros(count, dtype=word_type(self.ring))
        block = BLOCK_BYTES // total.dtype.itemsize

        def sum_range(start: int, stop: int) -> None:
            streams = MaskStreams(masks, total.dtype, start)
            for begin in range(start, stop, block):
                part = total[begin : min(begin + block, stop)]
                for member in self.survivors:
                    np.add(part, read(member.identity, begin, begin + len(part)), out=part)
                streams.add_to(part)

        work_in_ranges(sum_range, count, block, threads)
        return total

    def _masks(self) -> list[Mask]:
        """Every mask left in the sum, with the sign that removes it."""
        masks = [Mask(self._self_seed(member), -1) for member in self.survivors]
        for dropout in self.dropouts:
            key = MaskKey(self._rebuild(dropout, lambda raw: MaskKey(raw).public, dropout.mask_public))
            for member in self.survivors:
                seed = pairwise_seed(key, member.mask_public, self.context, member.identity, dropout.identity)
                masks.append(Mask(seed, -pair_sign(member.identity, dropout.identity)))
        return masks

    def _self_seed(self, member: MemberKeys) -> bytes:
        secret = self._rebuild(member, self_mask_hash, member.self_mask_hash)
        return self_mask_seed(secret, self.context, member.identity)

    def _rebuild(self, member: MemberKeys, public_of: Callable[[bytes], bytes], expected: bytes) -> bytes:
        """Combine shares until the result matches what the member published (S7)."""
        # A dealer can deal, and hash, a share that is no field element; it is passed over like any other wrong one.
        shares = {holder: share for holder, share in self.shares[member.identity].items() if is_element(share)}
        for subset in islice(_subsets(sorted(shares), self.threshold), _MAX_SUBSETS):
            secret = combine({holder: shares[holder] for holder in subset}, self.threshold)
            if public_of(secret) == expected:
                return secret
        raise WrongSharesError(member.identity)


def _subsets(holders: Sequence[int], threshold: int) -> Iterator[list[int]]:
    """Yield sets of `threshold` holders that leave out none, then one, then two: few wrong shares are avoided soon."""
    for missing in range(len(holders) - threshold + 1):
        candidates = holders[: threshold + missing]
        for left_out in combinations(candidates, missing):
            yield [holder for holder in candidates if holder not in left_out]


def member_keys(
    identity: IdentityKey, mask_keys: Sequence[bytes], hashes: Sequence[bytes], sum_index: int
) -> MemberKeys:
    """Pick one sum's public keys out of a join message."""
    return MemberKeys(identity, mask_keys[sum_index - 1], hashes[sum_index - 1])
