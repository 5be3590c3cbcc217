"""What hiding an update costs, against the limit of the machine: ratios to bare AES-256-CTR in the same process.

Times are CPU seconds, the best of a few runs: what other programs on the machine do hardly shows in them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedit_protocol.ids import IdentityKey, client_id
from fedit_protocol.messages import CohortRules, RingSpec
from fedit_protocol.metrics import ClientReport, metric_specs
from fedit_protocol.secagg.keys import MaskKey, self_mask_hash
from fedit_protocol.secagg.masking import Mask, apply_masks
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.ring import needed_bits, payload_length, word_count, word_reader, word_type
from fedit_protocol.secagg.shamir import combine, random_element, split
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.secagg.unmask import MemberKeys, UnmaskJob
from fedit_protocol.testing import MemoryFederation, MemoryRound, seeded_random, small_task
from fedit_server.storage.spool import SpoolReader

from . import flower
from .ingest import ingest_figures
from .loop_gap import loop_gap_figures

Figure = float | str | None
Result = dict[str, Figure | dict[str, Figure]]

PARAMETERS = 4_194_304
MEMBERS, DROPPED = 100, 10
ROUND_PARAMETERS = 1_048_576
WEIGHT = 2
"""w_max: the widest that a cohort of 100 sends at 8 bits in 16-bit words."""
_ROUNDS = 3
"""How often the rounds of 50 are run, ours and flwr's, of which the quickest counts."""
CALLS_KIB = (64, 128, 256, 512, 1024)


def run() -> Result:
    """Measure everything; takes some minutes, most of it for the rounds of 50 and 100 devices."""
    ring = ring_of(PARAMETERS, MEMBERS)
    limit = aes_seconds_per_byte()
    mask_limit, unmask_limit = (limit * masks * payload_length(ring) for masks in (MEMBERS, server_masks()))
    job = unmask_job(ring)
    rounds = {f"n{count}": best_of(times, partial(one_round, count)) for count, times in ((50, _ROUNDS), (MEMBERS, 1))}
    return {
        "setting": f"d = {PARAMETERS:,}, n = {MEMBERS}, {DROPPED} dropped, {ring.word_bits}-bit ring; "
        f"rounds of {ROUND_PARAMETERS:,} parameters with weights up to {WEIGHT}, a tenth dropped",
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "aes_256_ctr_gb_per_cpu_s": 1e-9 / limit,
        "client_mask_over_limit": client_mask_seconds(ring) / mask_limit,
        "server_unmask_over_limit": best_of(3, partial(unmask, job, 1)) / unmask_limit,
        "server_unmask_wall_over_cpu_limit": best_of(20, partial(unmask, job, 2), perf_counter) / unmask_limit,
        "bytes_per_parameter": payload_length(ring) / ring.size,
        "server_rss_vectors": (peak_bytes(MEMBERS) - peak_bytes(10)) / payload_length(ring),
        "round_cpu_s": {**rounds, **beside_flwr(rounds["n50"])},
        **ingest_figures(),
        **loop_gap_figures(),
        "reconstruct_ms": {"first": reconstruct_ms(first=True), "cached": reconstruct_ms(first=False)},
    }


def beside_flwr(own: float) -> dict[str, Figure]:
    """The round of 50 by flwr's functions at the same threshold, and how many times ours it costs; None without it."""
    if not flower.is_installed():
        return {"flwr_n50": None, "flwr_n50_over_ours": None}
    setting = flower.Setting(50, 5, rules(50).threshold)
    theirs = min(flower.round_cpu_s(setting, ROUND_PARAMETERS) for _ in range(_ROUNDS))
    return {"flwr_n50": theirs, "flwr_n50_over_ours": theirs / own}


def best_of(times: int, work: Callable[[], object], clock: Callable[[], float] = process_time) -> float:
    """The least seconds that one call took, of the CPU unless another clock is given."""
    spent = []
    for _ in range(times):
        start = clock()
        work()
        spent.append(clock() - start)
    return min(spent)


def ring_of(size: int, members: int) -> RingSpec:
    """The ring of an 8-bit task with weights up to 2: the widest cohort that 16-bit words still hold."""
    assert needed_bits(members, WEIGHT, 8) <= 16
    return RingSpec(
        size=size,
        clip_norm=10.0,
        value_bits=8,
        value_range=1.0,
        max_weight=WEIGHT,
        cohort_max=members,
        word_bits=16,
        metrics=metric_specs(WEIGHT),
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


def unmask(job: UnmaskJob, threads: int) -> None:
    """Rebuild every secret, agree on every pair's seed, add the payloads, take all masks off."""
    payload: Words = np.zeros(word_count(job.ring), dtype=word_type(job.ring))
    job.sum_words(lambda member, start, stop: payload[start:stop], threads)


def unmask_job(ring: RingSpec, count: int = MEMBERS) -> UnmaskJob:
    """The job of a round in which the first tenth dropped out after sharing their keys."""
    draw = seeded_random("bench server")
    threshold, dropped = rules(count).threshold, count // 10
    members, shares = [], {}
    for number in range(count):
        key, secret, identity = MaskKey.generate(draw), random_element(draw), IdentityKey(draw(32))
        members.append(MemberKeys(identity, key.public, self_mask_hash(secret)))
        opened = key.secret_bytes() if number < dropped else secret
        dealt = split(opened, threshold, count, draw)
        shares[identity] = {holder: dealt[holder] for holder in range(dropped, count)}
    dropouts, survivors = tuple(members[:dropped]), tuple(members[dropped:])
    return UnmaskJob(ring, bytes(32), threshold, 1, survivors, dropouts, shares)


def peak_bytes(count: int) -> int:
    """The peak memory of a process of its own that sums a cohort's uploads from the spool, as the server does."""
    code = f"from tests.bench.secagg import print_peak; print_peak({count})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout)


def print_peak(count: int) -> None:
    """Sum one stored payload `count` times over with all masks of the cohort; print this process's peak in bytes."""
    ring = ring_of(PARAMETERS, MEMBERS)
    job = unmask_job(ring, count)
    with tempfile.NamedTemporaryFile() as stored:
        stored.truncate(payload_length(ring))
        paths = {client_id(member.identity): Path(stored.name) for member in job.survivors}
        job.sum_words(word_reader(ring, SpoolReader(paths)), threads=2)
    # Not ru_maxrss: a child inherits its parent's peak in it, so that every cohort would look the same.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    sys.stdout.write(str(int(line.split()[1]) * 1024))


def rules(count: int = MEMBERS) -> Thresholds:
    """The thresholds of the default rules."""
    return Thresholds.of(
        count,
        CohortRules(
            cohort_min=3, corrupt_fraction=0.1, dropout_fraction=0.3, min_survivors=0, threshold=0, min_cert_age_s=0
        ),
    )


def one_round(count: int) -> None:
    """A whole round in memory: every signature, share, mask and check of all parties; a tenth drops out."""
    dropped = count // 10
    document = small_task(count, ROUND_PARAMETERS)
    encoding = document.task.encoding.model_copy(update={"max_weight": WEIGHT})
    document = document.model_copy(update={"task": document.task.model_copy(update={"encoding": encoding})})
    round_ = MemoryRound(MemoryFederation(count), document, drops=dict.fromkeys(range(dropped), "upload"))
    updates = [np.full(ROUND_PARAMETERS, 0.01, dtype=np.float32)] * count
    round_.run(updates, [1] * count, [ClientReport(1, 1.0, None)] * count)
    if round_.aggregate is None or round_.aggregate.survivors != count - dropped:
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
