"""The golden vectors of whole rounds: what devices and server said, in order, and what came of it; failures too.

A server that holds `server_secret` and is given the lines of its devices at the stated times must say every line of its
own, byte for byte, and end as stated. A device is checked with the lines that are for it or for all.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from fedit_protocol.adapter import Vector as Update
from fedit_protocol.encoding import encode
from fedit_protocol.messages import Shares
from fedit_protocol.metrics import CanaryLoss, ClientReport
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, one_hot_updates, small_task, two_sum_task
from fedit_protocol.version import FIRST_VERSION

from .canaries import NF4_BF16, canary_task
from .noisy import noisy_task
from .recorded import RecordedRound
from .rounds import deal_spoiled
from .two_sums import factor_updates
from .vector_derivations import Vector

LIAR = 1
_LATER = ("domains", "statistics")
REPORT = ClientReport(examples=40, train_loss=1.25, held_out_loss=2.5)

THREE = [
    np.array([1, 0, 0, 0.5, -0.5, 0, 0, -1], dtype=np.float32),
    np.array([0, 1, 0, 0.25, -0.25, 0, 1, -1], dtype=np.float32),
    np.array([0, 0, 1, 0.125, 0.75, 0, 1, -1], dtype=np.float32),
]


class ComplainedAbout(Participant):
    """Hashes other shares than it seals for the second holder."""

    def _deal(self, roster: VerifiedRoster) -> Shares:
        honest = super()._deal(roster)
        leaves = (*honest.leaves[:2], bytes(len(honest.leaves[2])), *honest.leaves[3:])
        return honest.model_copy(update={"leaves": leaves})


class OffPolynomial(Participant):
    """Deals zeros, sealed and hashed as they should be: no holder can tell."""

    def _deal(self, roster: VerifiedRoster) -> Shares:
        return deal_spoiled(self, roster, lambda _, packed: bytes(len(packed)))


class ReturnsOtherShares(Participant):
    """Answers with shares that were never dealt."""

    def _share_of(self, dealer: int, alive: bool, sum_index: int) -> bytes:
        honest = super()._share_of(dealer, alive, sum_index)
        return bytes([honest[0] ^ 1]) + honest[1:]


def _round(
    document: TaskDocument,
    updates: list[Update] | None = None,
    weights: list[int] | None = None,
    *,
    liar: type[Participant] | None = None,
    report: ClientReport = REPORT,
    **round_options: Any,
) -> Vector:
    """Play a round of as many devices as the task's cohort has, device LIAR being a liar if one is given."""
    count = document.task.round.cohort_size
    updates = updates or one_hot_updates(count, document.layout.size)
    weights = weights or [1] * count
    round_ = RecordedRound(MemoryFederation(count, seed="vectors"), document, **round_options)
    if liar is not None:
        round_.replace_member(LIAR, liar)
    round_.run(updates, weights, [report] * count)
    return {
        "descriptor": encode(round_.federation.descriptor).hex(),
        "server_secret": round_.federation.server.secret_bytes().hex(),
        "document": encode(document).hex(),
        "offer": round_.offer.hex(),
        "cohort_id": round_.cohort_id,
        "devices": [device.hex() for device in round_.devices],
        "updates": [update.astype("<f4").tobytes().hex() for update in updates],
        "weights": weights,
        "report": {key: value for key, value in asdict(report).items() if value or key not in _LATER},
        "liar": None if liar is None else LIAR,
        **({"canary": [asdict(each) for each in round_.canary.values()]} if round_.canary else {}),
        "lines": round_.lines,
        "outcome": round_.outcome(),
    }


def _two_sums(drops: dict[int, str] | None = None) -> Vector:
    """Nine devices, the fewest of which one may be lost: two sums over fewer than eight survivors are refused.

    The offer says 2.0, as before devices of 2.2 trained beside what the second sum recovers: the sums are the same.
    """
    document = two_sum_task(9, 3, 2, 1, min_survivors=8)
    return _round(document, factor_updates(9, m=3, n=2, rank=1), drops=drops or {8: "upload 2"}, speaks=FIRST_VERSION)


def _canary() -> Vector:
    """Three devices of one class show its mean; of the other one drops out, so its slot stays closed."""
    losses = [CanaryLoss(NF4_BF16[number > 2], 2.5 + number / 8) for number in range(7)]
    return _round(canary_task(7, NF4_BF16), drops={6: "upload"}, canary=dict(enumerate(losses)))


TRANSCRIPTS: Final[dict[str, Callable[[], Vector]]] = {
    "three_devices": lambda: _round(small_task(3, 8), THREE, [1, 2, 15]),
    "dropouts": lambda: _round(small_task(5, 8), weights=[1, 2, 3, 4, 5], drops={4: "upload"}),
    "strict": lambda: _round(small_task(4, 8, strict=True), drops={3: "unmask"}),
    "second_cohort": lambda: _round(small_task(3, 8, cohorts=2, min_cohorts=1), THREE, cohort_id=1),
    "noise": lambda: _round(
        noisy_task(4, 8),
        [update * np.float32(0.25) for update in (*THREE, THREE[0])],
        report=ClientReport(1, 0.0, None),
    ),
    "canary": _canary,
    "two_sums": _two_sums,
    "two_sums_second_fails": lambda: _two_sums(dict.fromkeys(range(4), "upload 2")),
    "complaint": lambda: _round(small_task(5, 8), liar=ComplainedAbout),
    "lying_holder": lambda: _round(small_task(5, 8), liar=ReturnsOtherShares),
    "too_few_uploads": lambda: _round(small_task(4, 8), drops={0: "upload", 1: "upload"}),
    "too_few_answers": lambda: _round(small_task(4, 8), drops={0: "unmask", 1: "unmask"}),
    "dealer_off_polynomial": lambda: _round(small_task(4, 8), liar=OffPolynomial),
}
"""The recorded rounds, by name."""
