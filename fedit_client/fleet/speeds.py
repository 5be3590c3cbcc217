"""How much slower than this machine each virtual client is: drawn once from the fleet's seed.

A client declares its rounds' time as a device does: by what its last one took, which was that much longer than here.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from fedit_client.fleet.chance import draws
from fedit_protocol.errors import FleetError

_FORMS: Final = "same or lognormal:SIGMA"
_SLOWEST: Final = 32.0


class Speeds(Protocol):
    """By what factor a client's work of a round takes longer than here."""

    def slowdown(self, seed: int, client: int) -> float:
        """Return a factor of at least 1."""
        ...


@dataclass(frozen=True)
class Same:
    """Everybody is as fast as this machine."""

    def slowdown(self, seed: int, client: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class LogNormal:
    """exp(σ·|z|), z normal: nobody is faster than this machine, half are slower than exp(0.67·σ), 32 at most."""

    sigma: float

    def slowdown(self, seed: int, client: int) -> float:
        """Draw the client's factor."""
        drawn = abs(float(draws(seed, "speed", client).normal()))
        return min(math.exp(self.sigma * drawn), _SLOWEST)


def parse_speeds(text: str) -> Speeds:
    """Return the model that a text names; raises FleetError F003, which lists the forms."""
    kind, colon, number = text.partition(":")
    if kind == "same" and not colon:
        return Same()
    try:
        sigma = float(number)
    except ValueError:
        sigma = 0.0
    if kind == "lognormal" and 0 < sigma <= 4:
        return LogNormal(sigma)
    raise FleetError(f"{text!r} is no model of speeds; it is {_FORMS}, SIGMA above 0 and at most 4", code="F003",
                     where="--speeds", fix="fedit-client fleet --speeds lognormal:0.5",
                     again="--speeds lognormal:0.5")  # fmt: skip
