"""What the operator asks of a step before it becomes an adapter version; a step that fails is rejected (S8).

The encoding bounds every sum already: no coordinate beyond its weight, no mean longer than the clip (quantize). A gate
is tighter, and knows what the task's updates look like when all is well.
"""

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.task import GateSpec


def check_step(gates: GateSpec, before: Vector, after: Vector) -> None:
    """Raise ProtocolError (round-failed) unless the step between two float32 (d,) adapters passes every gate."""
    if not np.isfinite(after).all():
        raise _rejected("the new adapter would hold values that are not finite")
    step = after.astype(np.float64) - before.astype(np.float64)
    norm, largest = float(np.linalg.norm(step)), float(np.abs(step).max(initial=0.0))
    for name, found, allowed in (
        ("max_norm", norm, gates.max_norm),
        ("max_coordinate", largest, gates.max_coordinate),
    ):
        if allowed and found > allowed:
            raise _rejected(f"the step has {name.removeprefix('max_')} {found:.4g}, gates.{name} is {allowed:g}")


def _rejected(why: str) -> ProtocolError:
    return ProtocolError(ProblemType.ROUND_FAILED, f"rejected: {why}")
