"""FedIT+RS and the audit: what sketches recover of the mean product, in how many bytes, and how well they know it."""

from pathlib import Path
from typing import Any

from fedit_protocol.methods import RoundStart

from .methods_products import error_of, masked_round, plain_round, update_bytes
from .methods_states import DEVICES, States, client_states


def figures(folder: Path) -> dict[str, Any]:
    """Errors over FedIT's with s = r and 8 bits, with a device missing in the second sum, and with s = (K - 1)·r."""
    return figures_of(client_states(folder))


def figures_of(states: States) -> dict[str, Any]:
    """The same for given states."""
    fedit, rs = states.task_of(name="fedavg", audit_every=1), states.task_of(name="fedit_rs")
    plain, updates = RoundStart(fedit, 0, states.adapter), states.updates
    averaged = masked_round(plain, updates)
    lost = error_of(fedit, states.adapter, averaged, updates)
    found: dict[str, Any] = {"fedit_error": lost, "audit_error_over_truth": averaged.figures["audit_error"] / lost}
    start = RoundStart(rs, 0, states.adapter)
    made = masked_round(start, updates)
    left = error_of(rs, states.adapter, made, updates)
    one_less = plain_round(start, updates, stay=DEVICES - 1)
    missing = error_of(rs, states.adapter, one_less, updates)
    found |= {
        "rs_error": left,
        "rs_error_over_fedit": left / lost,
        "rs_one_missing_over_fedit": missing / lost,
        "rs_estimate_over_truth": made.figures["left_error"] / left,
        "rs_bytes": update_bytes(rs) / update_bytes(states.task_of(name="fedavg")),
        **_one_sum(states, lost),
        "audit_bytes": update_bytes(fedit) / update_bytes(states.task_of(name="fedavg")),
    }
    rank = rs.task.adapter.rank
    whole = states.task_of(name="fedit_rs", sketch_rank=(DEVICES - 1) * rank)
    exact = plain_round(RoundStart(whole, 0, states.adapter), updates)
    return found | {"rs_exact_error": error_of(whole, states.adapter, exact, updates)}


def _one_sum(states: States, lost: float) -> dict[str, float]:
    """The same from two sketches in one sum, s = r and 2r rows: nobody waits for a second one."""
    document = states.task_of(name="fedit_rs1")
    made = masked_round(RoundStart(document, 0, states.adapter), states.updates)
    left = error_of(document, states.adapter, made, states.updates)
    return {
        "rs1_error_over_fedit": left / lost,
        "rs1_estimate_over_truth": made.figures["left_error"] / left,
        "rs1_bytes": update_bytes(document) / update_bytes(states.task_of(name="fedavg")),
    }
