"""How many devices a stage has waited for in vain, from counts alone."""

from collections.abc import Mapping

from fedit_protocol.secagg.stages import Stage


def missed_in(stage: str, invited: int, progress: Mapping[str, int]) -> int:
    """Return how many devices were awaited in a stage that has ended, and did not come.

    Only the stages in which each of a known set is awaited count, and only a round's first sum: unmask ends with the
    shares that suffice.
    """
    if progress.get("sum", 1) != 1:
        return 0
    joined = progress.get("joined", 0)
    awaited = {
        Stage.ADVERTISE_KEYS: (invited, joined),
        Stage.ACCEPT: (invited, joined),
        Stage.SHARE_KEYS: (joined, progress.get("shared", 0)),
        Stage.ACKNOWLEDGE: (progress.get("shared", 0), progress.get("acknowledged", 0)),
        Stage.MASKED_UPDATE: (progress.get("sharers", 0), progress.get("uploaded", 0)),
        Stage.SEALED_UPDATE: (joined, progress.get("uploaded", 0)),
    }
    expected, came = awaited.get(Stage(stage), (0, 0))
    return max(0, expected - came)
