"""What a round's report says of the loss by averaging, in words for commands and pages."""

from collections.abc import Iterator, Mapping
from typing import Any


def audit_words(report: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield pairs of a label and a clause; nothing where no round was audited."""
    if report is None:
        return
    if audits := report.get("audits"):
        newest, *older = audits
        before = "".join(f" ({one['error']:.1%} in round {one['round']})" for one in older)
        lost = f"round {newest['round']} lost {newest['error']:.1%} of its change by averaging A and B apart{before}"
        yield "audit", f"{lost}{_recovered(newest)}"
    if advised := report.get("advised"):
        needs = f"with {advised['survivors']} devices or more to the end"
        yield "advice", f"two audits above {advised['above']:.0%}: fedit_rs gives most of it back, {needs}"
    made = report.get("method", {})
    if "side_rank" in made:
        capped = "; its last cut dropped more than it should, which comes back later" if made.get("side_capped") else ""
        yield "side", f"what was given back travels as a second adapter of rank {made['side_rank']:.0f}{capped}"


def _recovered(audit: Mapping[str, Any]) -> str:
    left = audit["left"]
    if left is None:
        return ""
    if left < audit["error"]:
        return f"; {left:.1%} after what the sketch gave back"
    return "; nothing was given back: there was too little to gain, or too few devices answered"
