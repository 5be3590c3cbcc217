"""FlexLoRA (Bai et al. 2024), a trusted baseline: the rank's best adapter for the mean of the devices' products."""

import numpy as np

from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.side_delta import compressed
from fedit_protocol.methods.trusted import Products, TrustedMethod


class FlexLora(TrustedMethod):
    """The truncated SVD of Σp·B_kA_k, its singular values shared evenly: B = U√S, A = √S·Vᵀ."""

    def trusted_update(self, start: RoundStart, products: Products) -> Step:
        """Return the way to the factors of the truncated mean product; what is cut off is lost."""
        layout, rank = start.document.layout, start.document.task.adapter.rank
        best = compressed(products.mean_product(start.adapter), most=rank)
        after = np.zeros(layout.size)
        for pair in lora_pairs(layout):
            a, b = pair.factors(start.adapter)
            if pair.path in best:
                left, right = best[pair.path]
                a[right.shape[0] :], b[:, left.shape[1] :] = 0.0, 0.0
                a[: right.shape[0]], b[:, : left.shape[1]] = right, left
            pair.put(after, a, b)
        change = after - start.adapter.astype(np.float64)
        return Step(change, public=start.public, kept=start.kept, reset=True)
