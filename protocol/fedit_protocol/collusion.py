"""How many devices of a cohort may collude, and whether so many honest ones are left (SPEC, section 5)."""

from math import floor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fedit_protocol.task import RoundSpec

MAX_COHORT: Final = 128
"""Devices in the largest cohort."""


def corrupt_of(n: int, corrupt_fraction: float) -> int:
    """Return c for n members: none of three, else the stated share, and at least one."""
    return 0 if n == 3 else max(1, floor(exactly(corrupt_fraction * n)))


def exactly(product: float) -> float:
    """Drop the last binary digits: 0.29 * 100 must not be floored to 28, nor (1 - 0.3) * 10 be raised to 8."""
    return round(product, 9)


def check_hiding(policy: "RoundSpec", hidden_among: int, setting: str) -> None:
    """Raise ValueError, with the nearest valid setting, if even a full cohort has fewer honest devices than that.

    A loss that lies under pads shows only where `hidden_among` and c devices are behind it.
    """
    size, honest = policy.ring_size, _honest(policy)
    if honest >= hidden_among:
        return
    larger = (policy.model_copy(update={"cohort_size": more}) for more in range(policy.cohort_size, MAX_COHORT + 1))
    enough = next(
        (one.cohort_size for one in larger if one.ring_size <= MAX_COHORT and _honest(one) >= hidden_among), None
    )
    near = f"{setting} = {honest} or less" if enough is None else f"round.cohort_size = {enough} or more"
    raise ValueError(
        f"{setting} = {hidden_among} honest devices exceed what a cohort of {size} has if {size - honest} of them"
        f" collude, so that no loss would ever be known: set {near}"
    )


def _honest(policy: "RoundSpec") -> int:
    """The least honest devices of a full cohort."""
    return policy.ring_size - corrupt_of(policy.ring_size, policy.corrupt_fraction)
