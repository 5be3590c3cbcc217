"""FLoRA (Wang et al. 2024), a trusted baseline: stacks the devices' factors into the base, and begins anew."""

import numpy as np

from fedit_protocol.adapter import first_adapter
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.side_delta import SIDE, as_state, grown, read
from fedit_protocol.methods.trusted import Products, TrustedMethod


class Flora(TrustedMethod):
    """The base gets γ·[B_1 … B_K][p_1A_1; …; p_KA_K], here as the side delta; A is drawn again and B is 0."""

    def trusted_update(self, start: RoundStart, products: Products) -> Step:
        """Return the way to a fresh adapter, and the side delta of before with the stacked factors added.

        That is exact up to 256 columns a layer; what more drops is the figure `side_dropped`, a share of the norm.
        """
        spec = start.document.task.adapter
        stacked = products.mean_product(start.adapter, spec.alpha / spec.rank)
        side, figures = grown(read(start.public, SIDE), stacked)
        fresh = first_adapter(start.document.layout, spec.seed + start.version + 1)
        change = fresh.astype(np.float64) - start.adapter.astype(np.float64)
        return Step(change, public=as_state(SIDE, side), kept=start.kept, reset=True, figures=figures)
