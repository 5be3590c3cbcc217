"""SCAFFOLD (Karimireddy et al. 2020): FedAvg with control variates against the drift of unlike devices.

The paper's second vector c_k⁺ − c_k = −c − Δ_k / Σ rates is linear in the update, and where all devices make the same
steps its sum follows from the sum of the updates. So it is not sent: one vector, no wider ring (decision 0057).
"""

import numpy as np

from fedit_protocol.control_variates import CONTROL, DEVICES, next_control, rate_sum
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.secagg.quantize import Aggregate


class Scaffold(FedAvg):
    """FedAvg of the updates, and the next c from their mean."""

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the mean update as the step, and the next c in the public state; raises ProtocolError."""
        step = super().server_update(start, first, second)
        task, held = start.document.task, start.public.get(CONTROL)
        control = np.zeros(len(start.adapter)) if held is None else held.astype(np.float64)
        share = min(1.0, first.report.statistics.get(DEVICES, 0) / task.method.population)
        control = next_control(control, step.change, rate_sum(task), share)
        public = {CONTROL: control.astype(np.float32)}
        return Step(step.change, public, figures={**step.figures, "control_norm": float(np.linalg.norm(control))})
