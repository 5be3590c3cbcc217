"""Which virtual client is online when: drawn from the fleet's seed, as a function of the time since the fleet began."""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from fedit_client.fleet.chance import draws
from fedit_protocol.errors import FleetError

_DAY_S: Final = 86400.0
_SLOT_S: Final = 600.0
_AWAKE: Final = 0.5
_SPREAD: Final = 1 / 8
"""Standard deviation of when the clients' stretches begin, in periods: most people sleep at the same time."""
_FORMS: Final = "always, diurnal[:PERIOD_S[:SHARE]] or bernoulli:SHARE[:SLOT_S]"


class Availability(Protocol):
    """Whether a client is online; times in seconds since the fleet began, clients numbered from 0."""

    def online(self, seed: int, client: int, at_s: float) -> bool:
        """Say whether the client is there at this time."""
        ...

    def until_s(self, seed: int, client: int, at_s: float) -> float:
        """Return the first time after `at_s` at which it may be otherwise; infinity if never."""
        ...


@dataclass(frozen=True)
class Always:
    """Everybody, all the time."""

    def online(self, seed: int, client: int, at_s: float) -> bool:
        """Yes."""
        return True

    def until_s(self, seed: int, client: int, at_s: float) -> float:
        """Never."""
        return math.inf


@dataclass(frozen=True)
class Diurnal:
    """Each client is online for one stretch of every period, a `share` of it; the stretches begin around one time."""

    period_s: float = _DAY_S
    share: float = _AWAKE

    def online(self, seed: int, client: int, at_s: float) -> bool:
        """Say whether `at_s` lies in the client's stretch."""
        return self._place(seed, client, at_s) < self.share

    def until_s(self, seed: int, client: int, at_s: float) -> float:
        """Return when the stretch, or the gap behind it, ends."""
        place = self._place(seed, client, at_s)
        return at_s + ((self.share if place < self.share else 1.0) - place) * self.period_s

    def _place(self, seed: int, client: int, at_s: float) -> float:
        """How far into its own period the client is, 0 to 1."""
        begins = float(draws(seed, "diurnal", client).normal(0.0, _SPREAD))
        # The fleet begins in the middle of the average stretch, not in the night.
        return (at_s / self.period_s - begins + self.share / 2) % 1.0


@dataclass(frozen=True)
class Bernoulli:
    """In every slot each client is online with probability `share`, whatever was before."""

    share: float
    slot_s: float = _SLOT_S

    def online(self, seed: int, client: int, at_s: float) -> bool:
        """Draw for the slot that `at_s` lies in."""
        return float(draws(seed, "bernoulli", client, int(at_s // self.slot_s)).random()) < self.share

    def until_s(self, seed: int, client: int, at_s: float) -> float:
        """Return when the slot ends."""
        return (at_s // self.slot_s + 1) * self.slot_s


def parse_availability(text: str) -> Availability:
    """Return the model that a text names; raises FleetError F002, which lists the forms."""
    kind, *numbers = text.split(":")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise _unknown(text) from None
    if not all(value > 0 and math.isfinite(value) for value in values):
        raise _unknown(text)
    match kind, values:
        case "always", []:
            return Always()
        case "diurnal", []:
            return Diurnal()
        case "diurnal", [period_s]:
            return Diurnal(period_s)
        case "diurnal", [period_s, share] if share <= 1:
            return Diurnal(period_s, share)
        case "bernoulli", [share] if share <= 1:
            return Bernoulli(share)
        case "bernoulli", [share, slot_s] if share <= 1:
            return Bernoulli(share, slot_s)
    raise _unknown(text)


def _unknown(text: str) -> FleetError:
    return FleetError(f"{text!r} is no model of availability; it is {_FORMS}", code="F002", where="--availability",
                      fix="fedit-client fleet --availability diurnal", again="--availability diurnal")  # fmt: skip
