"""FedSVD: like FFA-LoRA, and after a round the product is factored anew so that A is orthonormal (Lee et al. 2025).

The server alone does it, from the sum: with the thin QR factors of B and Aᵀ an SVD of r × r numbers is enough.
"""

from dataclasses import replace

import numpy as np

from fedit_protocol.errors import ConfigError
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.ffa_lora import FfaLora
from fedit_protocol.methods.lora_pairs import LoraPair, Matrix, lora_pairs
from fedit_protocol.secagg.quantize import Aggregate


class FedSvd(FfaLora):
    """Add the mean change of B, then write B·A as (UΣ)·Vᵀ: the same product, each row of A of length 1."""

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the step to the new factors; from every `refactor_every`-th version on. Raises ProtocolError.

        The coordinates mean something else afterwards, so the optimizer forgets its momenta (`Step.reset`) and the
        step is taken whole. Raises ConfigError C041 for a layer with fewer inputs than the adapter has rank.
        """
        step = super().server_update(start, first)
        if (start.version + 1) % start.document.task.method.refactor_every:
            return step
        before = start.adapter.astype(np.float64)
        after = before + step.change
        for pair in lora_pairs(start.document.layout):
            pair.put(after, *refactored(pair, *pair.factors(after)))
        return replace(step, change=after - before, reset=True)


def refactored(pair: LoraPair, a: Matrix, b: Matrix) -> tuple[Matrix, Matrix]:
    """Return A (r, n) with orthonormal rows and B (m, r) of the same product; raises ConfigError C041 if n < r."""
    if pair.n < pair.rank:
        raise ConfigError(
            f"fedsvd cannot make {pair.rank} orthonormal rows of {pair.n} inputs in {pair.path}",
            code="C041",
            fix=f"set adapter.rank to {pair.n} at most",
        )
    q_b, r_b = np.linalg.qr(b)  # (m, k), (k, r) with k = min(m, r)
    q_a, r_a = np.linalg.qr(a.T)  # (n, r), (r, r)
    left, values, right = np.linalg.svd(r_b @ r_a.T)  # (k, k), (k,), (r, r): whole, so that A keeps all its rows
    scaled = np.zeros((pair.m, pair.rank))
    scaled[:, : len(values)] = (q_b @ left) * values
    return right @ q_a.T, scaled
