"""FedEx-LoRA (Singhal et al. 2024), a trusted baseline: averages the factors, and adds what that loses to the base."""

from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.side_delta import SIDE, as_state, grown, read, recovered
from fedit_protocol.methods.trusted import Products, TrustedMethod


class FedExLora(TrustedMethod):
    """FedAvg of A and B; the residual C = Σp·B_kA_k − B̄Ā, times the scale γ, goes into the side delta."""

    def trusted_update(self, start: RoundStart, products: Products) -> Step:
        """Return the mean change, and the side delta of before with what it loses added, in as few columns as its rank.

        That is exact up to 256 columns a layer; what more drops is the figure `side_dropped`, a share of the norm.
        With a server step η that is γ(η·C + η(1 − η)·b̄ā), as for the sketches: the product moves by η times its mean.
        """
        mean = products.mean
        lost = recovered(start.document, mean, products.residual())
        side, figures = grown(read(start.public, SIDE), lost)
        return Step(mean, public=as_state(SIDE, side), kept=start.kept, figures=figures)
