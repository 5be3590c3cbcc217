"""What one device puts under its masks: its update as ring words, noise if the round asks for it, and its figures."""

from collections.abc import Callable

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import encode
from fedit_protocol.messages import RingSpec
from fedit_protocol.metrics import CanaryLoss, ClientReport
from fedit_protocol.secagg.effects import Effects, Persist, Record
from fedit_protocol.secagg.noisy_update import encode_noisy
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import encode_update
from fedit_protocol.secagg.ring import client_variance
from fedit_protocol.secagg.sensitivity import seen_in
from fedit_protocol.secagg.thresholds import Thresholds

Figures = tuple[int, ClientReport, CanaryLoss | None]
"""A device's integer weight, what it reports, and its canary loss if that goes along."""


def own_words(
    update: Vector,
    figures: Figures,
    ring: RingSpec,
    thresholds: Thresholds,
    corrupt_fraction: float,
    random: Callable[[int], bytes],
) -> tuple[Words, Effects]:
    """Return the plain words, and what must be persisted before they leave: the account of noise, the canary's mark.

    `corrupt_fraction` is the share that the owner expects to collude; raises ProtocolError like `encode_update` (C10).
    """
    weight, report, canary = figures
    if ring.noise is not None:
        variance = client_variance(ring, thresholds.hidden_among)
        words = encode_noisy(update, ring, variance, (random(32), random(32)))
        account = seen_in(ring, thresholds, corrupt_fraction)
        return words, (Persist(Record(kind="noise", body=encode(account))),)
    words = encode_update(update, weight, report, ring, random(32), canary)
    told = canary is not None or report.domains
    return words, (Persist(Record(kind="canary", body=b"")),) if told else ()
