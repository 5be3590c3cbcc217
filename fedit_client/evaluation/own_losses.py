"""What the adapter versions do on this device's own held-out rows, in words; kept here and told to nobody."""

from collections.abc import Mapping
from typing import Final

from fedit_client.adapters.editions import own_losses
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership
from fedit_client.records.history import RoundEntry
from fedit_protocol.peft_folder import OwnLoss

Losses = Mapping[int, OwnLoss | None]
"""Version → what was seen of it; None: not measured."""

_MOST_TOLD: Final = 4


def losses_here(paths: Paths) -> Losses:
    """Return the losses of the joined task's versions on this device; raises StorageError."""
    membership = load_membership(paths.membership_file)
    return own_losses(paths.adapters, membership.task_document.task.id) if membership else {}


def own_line(losses: Losses) -> str | None:
    """Return the losses in words, the newest versions only; None if there is nothing to say."""
    told = [
        f"version {version} " + ("not measured" if own is None else f"{own.loss:.3f}{_made_of_it(own)}")
        for version, own in sorted(losses.items())[-_MOST_TOLD:]
    ]
    if all(own is None for own in losses.values()):
        return None
    last = losses[max(losses)]
    return "loss on held-out rows: " + ", ".join(told) + ("; fedit-client eval" if last is None else "")


def _made_of_it(own: OwnLoss) -> str:
    return "" if own.trained is None else f" ({own.trained:.3f} after training here)"


def own_change(losses: Losses, entry: RoundEntry) -> str:
    """Return what a round brought on this device's rows, to stand behind its line in the history; "" if unknown."""
    after = None if entry.adapter_after is None else losses.get(entry.adapter_after)
    before = losses.get(entry.adapter_before)
    if before is None or after is None:
        return ""
    return f" · own rows {before.loss:.3f} → {after.loss:.3f}"
