"""What averaging the factors lost, in the report of a round: the last audits, and the method that they speak for."""

from collections.abc import Mapping
from typing import Any, Final

from fedit_protocol.limits import LEAST_SURVIVORS_OF_TWO_SUMS
from fedit_protocol.methods.audit import WORTH_IT, pays_to_recover
from fedit_protocol.task import Task
from fedit_protocol.task_tables import MethodName

_KEPT: Final = 2
"""Audits that a report tells of: so many the advice looks at."""


def audit_figures(
    task: Task, round_no: int, made: Mapping[str, float], before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return `audits`, the newest first, and `advised`, the method that they speak for; nothing without any.

    `made` are the figures of the round's own step, `before` is the report of the committed round before it, whose
    audits stay known in rounds that have none. An error is a share of what its round changed in the product B·A.
    """
    own = made.get("audit_error")
    if own is None and not task.method.audit_every:
        return {}
    audits = list((before or {}).get("audits", ()))
    if own is not None:
        audits.insert(0, {"round": round_no, "error": own, "left": made.get("left_error")})
    if not audits:
        return {}
    pays = task.method.name is MethodName.FEDAVG and pays_to_recover([one["error"] for one in audits])
    advised = {"method": str(MethodName.FEDIT_RS), "above": WORTH_IT, "survivors": LEAST_SURVIVORS_OF_TWO_SUMS}
    return {"audits": audits[:_KEPT], "advised": advised if pays else None}
