"""From sealed updates to their weighted mean: opened one after the other, each dropped once it is added."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fedit_protocol.errors import ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import SealedSpec
from fedit_protocol.methods.trusted import Products
from fedit_protocol.metrics import LOSS_UNIT, CohortReport, summed_report
from fedit_protocol.sealed.updates import open_update

Reader = Callable[[IdentityKey], bytes]
"""read(device) → its sealed update as stored."""


@dataclass(frozen=True)
class OpenedSum:
    """What a trusted round keeps of its updates: their weighted sum, and who sent something that no device may send."""

    total: NDArray[np.float64] = field(repr=False)
    """(d,) float64: Σ w·update in the update's own units."""
    weight: int
    survivors: int
    report: CohortReport
    refused: Mapping[IdentityKey, str]
    """Device → why its update was left out."""
    products: Products | None = field(default=None, repr=False)
    """What a method that needs single updates was given them for; in memory only."""
    seen: Mapping[IdentityKey, tuple[int, float]] = field(default_factory=dict, repr=False)
    """Device → its rows and its training loss, for rules that draw by them: in memory at most."""


@dataclass(frozen=True)
class OpeningJob:
    """All that the sum needs but the key; `devices` are those whose uploads count."""

    spec: SealedSpec
    context: bytes
    devices: tuple[IdentityKey, ...]

    def run(self, read: Reader, secret: X25519PrivateKey, products: Products | None = None) -> OpenedSum:
        """Open, check and add every update, also to empty `products` if given; CPU-bound, so call it in a thread.

        One that breaks a rule (S8) is left out and its sender named. Added in the order of the identity keys, so that
        the same uploads give the same bits after a restart.
        """
        total = np.zeros(self.spec.size, dtype=np.float64)
        told = list[Mapping[str, int]]()
        weight, refused, seen = 0, dict[IdentityKey, str](), dict[IdentityKey, tuple[int, float]]()
        for device in sorted(self.devices):
            try:
                opened = open_update(read(device), secret, self.spec, self.context, device)
            except ProtocolError as error:
                refused[device] = f"sealed an update that cannot be used: {error}"
                continue
            total += opened.weight * opened.update.astype(np.float64)
            weight += opened.weight
            seen[device] = opened.figures["examples"], opened.figures["train_loss"] / (LOSS_UNIT * opened.weight)
            if products is not None:
                products.add(opened.update, opened.weight)
            told.append(opened.figures)
        report = summed_report(told, self.spec.metrics, weight)
        return OpenedSum(total, weight, len(self.devices) - len(refused), report, refused, products, seen)
