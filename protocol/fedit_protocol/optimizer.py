"""From a round's step to the next adapter: the server's optimizer (Reddi et al. 2021, Algorithm 2). Pure numpy.

Whatever the rule, the next adapter and the optimizer's memory follow from sums and from what was there before.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.methods.contract import RoundStart, State, Step

MEMORY: Final = "optimizer/"
"""How the names of an optimizer's arrays begin among those that the server keeps."""


def apply(start: RoundStart, step: Step, moved: Sequence[slice]) -> tuple[Vector, State]:
    """Return the next adapter, float32 (d,), and what is kept for the round after; computed in float64.

    `moved` are the coordinates that were sent: the others, and their memory, stay as they are.
    """
    after = start.adapter.copy()
    for span in moved:
        after[span] = (start.adapter[span].astype(np.float64) + step.change[span]).astype(np.float32)
    return after, step.kept
