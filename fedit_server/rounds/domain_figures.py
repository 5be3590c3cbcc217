"""The losses of a round's domains as its report has them, and how evenly the adapter serves them."""

from typing import Any

from fedit_protocol.domains import known_losses, spread
from fedit_protocol.metrics import CohortReport


def domain_figures(report: CohortReport) -> dict[str, Any]:
    """Return `domains`, an entry per domain, and `spread` over those that are known; nothing without domains.

    An entry is a mean over all devices that have the domain (SPEC, section 20), or says why there is none.
    """
    if not report.domains:
        return {}
    each = [
        {
            "domain": found.name,
            "devices": found.devices,
            "rows": found.rows,
            "loss": found.loss,
            "unknown": str(found.unknown) if found.unknown else None,
        }
        for found in report.domains
    ]
    even = spread(known_losses(report.domains))
    told = None if even is None else {
        "mean": even.mean, "worst": even.worst, "worst_loss": even.worst_loss, "std": even.std, "jain": even.jain,
    }  # fmt: skip
    return {"domains": each, "spread": told}
