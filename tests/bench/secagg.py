"""What hiding an update costs, against the limit of the machine: ratios to bare AES-256-CTR in the same process.

Times are CPU seconds, the best of a few runs: what other programs on the machine do hardly shows in them.
"""

from collections.abc import Callable
from functools import partial
from time import process_time

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import CohortRules, RingSpec
from fedit_protocol.metrics import ClientReport, metric_specs
from fedit_protocol.secagg.keys import MaskKey, self_mask_hash
from fedit_protocol.secagg.masking import Mask, apply_masks
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.ring import needed_bits, payload_length, word_count, word_type
from fedit_protocol.secagg.shamir import combine, random_element, split
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.secagg.unmask import MemberKeys, UnmaskJob
from fedit_protocol.testing import MemoryFederation, MemoryRound, seeded_random, small_task

Result = dict[str, float | str | None]

PARAMETERS = 4_194_304
MEMBERS, DROPPED = 100, 10
ROUND_MEMBERS, ROUND_DROPPED, ROUND_PARAMETERS = 10, 1, 65_536
CALLS_KIB = (64, 128, 256, 512, 1024)


def run() -> Result:
    """Measure everything; takes well under a minute on one core."""
    ring = ring_of(PARAMETERS, MEMBERS)
    limit = aes_seconds_per_byte()
    return {
        "setting": f"d = {PARAMETERS:,}, n = {MEMBERS}, {DROPPED} dropped, {ring.word_bits}-bit ring",
        "aes_256_ctr_gb_per_cpu_s": 1e-9 / limit,
        "client_mask_over_limit": client_mask_seconds(ring) / (limit * MEMBERS * payload_length(ring)),
        "server_unmask_over_limit": server_unmask_seconds(ring) / (limit * server_masks() * payload_length(ring)),
        "bytes_per_parameter": payload_length(ring) / ring.size,
        "round_setting": f"d = {ROUND_PARAMETERS:,}, n = {ROUND_MEMBERS}, {ROUND_DROPPED} dropped",
        "round_cpu_s": best_of(3, one_round),
        "reconstruct_first_ms": reconstruct_ms(first=True),
        "reconstruct_cached_ms": reconstruct_ms(first=False),
    }


def best_of(times: int, work: Callable[[], object]) -> float:
    """The least CPU seconds that one call took."""
    spent = []
    for _ in range(times):
        start = process_time()
        work()
        spent.append(process_time() - start)
    return min(spent)


def ring_of(size: int, members: int) -> RingSpec:
    """The ring of an 8-bit task with weights up to 2: the widest cohort that 16-bit words still hold."""
    weight = 2
    assert needed_bits(members, weight, 8) <= 16
    return RingSpec(
        size=size,
        clip_norm=10.0,
        value_bits=8,
        value_range=1.0,
        max_weight=weight,
        cohort_max=members,
        word_bits=16,
        metrics=metric_specs(weight),
    )


def aes_seconds_per_byte() -> float:
    """The limit: `update_into` over zeros, at the best of the call sizes from 64 KiB to 1 MiB."""
    total = 128 << 20

    def stream(size: int) -> None:
        encryptor = Cipher(algorithms.AES256(bytes(32)), modes.CTR(bytes(16))).encryptor()
        zeros, out = bytes(size), bytearray(size)
        for _ in range(total // size):
            encryptor.update_into(zeros, out)

    return min(best_of(5, partial(stream, kib << 10)) for kib in CALLS_KIB) / total


def client_mask_seconds(ring: RingSpec) -> float:
    """One upload: the self mask and a mask with each of the other members."""
    draw = seeded_random("bench client")
    masks = [Mask(draw(32), 1 if number % 2 else -1) for number in range(MEMBERS)]
    words = np.zeros(word_count(ring), dtype=word_type(ring))
    return best_of(5, lambda: apply_masks(words, masks))


def server_masks() -> int:
    """The survivors' self masks, and every pair of a survivor and a dropout."""
    survivors = MEMBERS - DROPPED
    return survivors + DROPPED * survivors


def server_unmask_seconds(ring: RingSpec) -> float:
    """Rebuild every secret, agree on every pair's seed, add the payloads, take all masks off."""
    job = unmask_job(ring)
    payload: Words = np.zeros(word_count(ring), dtype=word_type(ring))
    return best_of(2, lambda: job.sum_words(lambda member, start, stop: payload[start:stop]))


def unmask_job(ring: RingSpec) -> UnmaskJob:
    """The job of a round in which the first members dropped out after sharing their keys."""
    draw = seeded_random("bench server")
    threshold = rules().threshold
    members, shares = [], {}
    for number in range(MEMBERS):
        key, secret, identity = MaskKey.generate(draw), random_element(draw), IdentityKey(draw(32))
        members.append(MemberKeys(identity, key.public, self_mask_hash(secret)))
        opened = key.secret_bytes() if number < DROPPED else secret
        dealt = split(opened, threshold, MEMBERS, draw)
        shares[identity] = {holder: dealt[holder] for holder in range(DROPPED, MEMBERS)}
    dropouts, survivors = tuple(members[:DROPPED]), tuple(members[DROPPED:])
    return UnmaskJob(ring, bytes(32), threshold, 1, survivors, dropouts, shares)


def rules() -> Thresholds:
    """The thresholds of the default rules."""
    return Thresholds.of(
        MEMBERS,
        CohortRules(
            cohort_min=3, corrupt_fraction=0.1, dropout_fraction=0.3, min_survivors=0, threshold=0, min_cert_age_s=0
        ),
    )


def one_round() -> None:
    """A whole round in memory: every signature, share, mask and check of all parties; one device drops out."""
    round_ = MemoryRound(
        MemoryFederation(ROUND_MEMBERS),
        small_task(ROUND_MEMBERS, ROUND_PARAMETERS),
        drops=dict.fromkeys(range(ROUND_DROPPED), "upload"),
    )
    updates = [np.full(ROUND_PARAMETERS, 0.01, dtype=np.float32)] * ROUND_MEMBERS
    round_.run(updates, [1] * ROUND_MEMBERS, [ClientReport(1, 1.0, None)] * ROUND_MEMBERS)
    if round_.aggregate is None or round_.aggregate.survivors != ROUND_MEMBERS - ROUND_DROPPED:
        raise RuntimeError(f"the round failed: {round_.server.failure}")


def reconstruct_ms(*, first: bool) -> float:
    """One secret from t of n shares: with new holders, or with holders whose Lagrange row is known."""
    threshold = rules().threshold
    shares = dict(enumerate(split(bytes(range(32)), threshold, MEMBERS, seeded_random("bench shamir"))))
    spent = []
    for skip in range(20):
        some = {member: share for member, share in shares.items() if not first or member != skip}
        start = process_time()
        combine(some, threshold)
        spent.append(process_time() - start)
    return 1000 * min(spent[1:])
