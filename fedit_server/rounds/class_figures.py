"""The canary losses of a round's base classes as its report has them, and the warning when classes drift apart."""

import logging
from collections.abc import Mapping
from typing import Any

from fedit_protocol.metrics import CohortReport, drift
from fedit_protocol.task import Task

log = logging.getLogger(__name__)


def class_figures(report: CohortReport) -> dict[str, Any]:
    """Return `canary`, an entry per class, and `drift` in nats per token; nothing for a task without canary rows.

    An entry is a mean over whole classes (SPEC, section 16), or says why there is none.
    """
    if not report.canary:
        return {}
    each = [
        {
            "class": str(found.base_class),
            "devices": found.devices,
            "loss": found.loss,
            "unknown": str(found.unknown) if found.unknown else None,
        }
        for found in report.canary
    ]
    return {"canary": each, "drift": drift(report.canary)}


def allowed_drift(task: Task) -> dict[str, Any]:
    """Return how far the classes of a task may be apart, beside the figures."""
    return {"max_drift": task.canary.max_drift} if task.canary else {}


def warn_of_drift(report: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Say in the log that the classes of a round are further apart than its task allows."""
    apart, most = report.get("drift"), report.get("max_drift")
    if apart is not None and most is not None and apart > most:
        log.warning("base classes drift apart: %.4f nats per token, %g allowed", apart, most, extra=dict(fields))
