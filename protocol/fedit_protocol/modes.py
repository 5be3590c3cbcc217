"""Whether a mode is allowed, and whether an offer is wholly of its mode: the guards against a downgrade (row 31).

A device goes from masked to trusted rounds by one way only: its owner allows it, joins a federation whose pinned
descriptor has it, and agrees to a task that says so. No message of a server opens another.
"""

from collections.abc import Collection

from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProblemType, SecurityError, TaskRefusedError
from fedit_protocol.messages import Offer, SecondRule
from fedit_protocol.refusals import listed, outside
from fedit_protocol.task import LEAST_MASKED, Mode


def check_mode(mode: Mode, allowed: Collection[Mode]) -> None:
    """Raise TaskRefusedError K001 or K011 unless the owner allows this mode (C1)."""
    if mode in allowed:
        return
    if mode is not Mode.TRUSTED:
        raise outside(f"mode {mode} is not allowed", "modes", listed({*allowed, mode}))
    raise TaskRefusedError(
        "the server asks for trusted mode, in which it sees every update of this device by itself; your limits allow"
        f" {' and '.join(allowed) or 'nothing'} only",
        code="K011",
        where="setting limits.modes",
        fix=f"fedit-client policy set modes {listed({*allowed, mode})}, if you trust this server with your updates",
    )


def check_federation_mode(mode: Mode, descriptor: FederationDescriptor) -> None:
    """Raise SecurityError unless the pinned descriptor has this mode: no server can add one to a federation later."""
    if mode not in descriptor.modes:
        allowed = " and ".join(descriptor.modes) or "none"
        raise SecurityError(
            ProblemType.POLICY_REFUSED,
            f"the server asks for mode {mode}, but the federation that this device joined has {allowed} only",
        )


def check_kind(offer: Offer) -> None:
    """Raise SecurityError unless the offer is wholly of its mode: one or two masked sums, or one sealed update (C3)."""
    masked = offer.mode is Mode.MASKED
    numbered = [spec.index for spec in offer.sums] == list(range(1, len(offer.sums) + 1))
    second = len(offer.sums) == 2
    if (
        not numbered
        or bool(offer.sums) is not masked
        or (offer.sealed is None) is not masked
        or (offer.second_rule is not SecondRule.NONE) is not second
    ):
        raise SecurityError(ProblemType.POLICY_REFUSED, "the offer contradicts itself about what is sent in it")
    if offer.combination.cohorts > 1 and (second or not masked):
        raise SecurityError(ProblemType.POLICY_REFUSED, "a second sum, or a sealed round, has one cohort")
    if masked and offer.cohort.cohort_min < LEAST_MASKED:
        raise SecurityError(ProblemType.POLICY_REFUSED, f"a masked round has {LEAST_MASKED} devices at least")
