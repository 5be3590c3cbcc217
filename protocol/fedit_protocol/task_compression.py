"""The table `[compression]` of a task (TASK.md): fewer bits or fewer numbers of an update, and what makes up for it."""

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pydantic import Field

from fedit_protocol.task_tables import Section

if TYPE_CHECKING:
    from fedit_protocol.task import Task

SIZE: Final = "size"
SIZE_DEVICES: Final = "size_devices"
KINDS: Final = frozenset({SIZE, SIZE_DEVICES})
"""The statistics that fit ranges (`statistics`)."""

_PLAIN_METHODS: Final = frozenset({"fedavg", "ffa_lora", "fedsa", "ditto"})
"""Those whose message is the same coordinates of the update in every round, and nothing else."""


class CompressionKind(StrEnum):
    """What is left out of an update before it is masked."""

    FITTED = "fitted"
    SIGN = "sign"
    SPARSE = "sparse"


class CompressionSpec(Section):
    """`[compression]`, optional: how an update becomes smaller (METHODS.md, section 5)."""

    kind: CompressionKind = Field(
        description="fitted: ranges by tensor that follow the updates, for few value_bits; sign: the sign of each"
        " coordinate; sparse: coordinates that all devices of a round have in common. sign and sparse keep what they"
        " left out on the device and send it later",
    )
    density: float = Field(0.25, gt=0, lt=1, description="sparse: share of each tensor's coordinates that is sent")
    range_rms: float = Field(
        0.0,
        ge=0,
        le=100,
        description="fitted: largest coordinate that is kept, in root mean squares of the last round's updates; 0 means"
        " 2 up to 5 value_bits, else 3.5",
    )


def check_compression(task: "Task") -> None:
    """Raise ValueError, with the nearest valid setting, if `[compression]` does not go with the rest of a task."""
    spec = task.compression
    if spec is None:
        return
    if task.round.mode != "masked" or task.privacy:
        raise ValueError(
            "[compression] needs round.mode = masked and no [privacy]: it changes what the ring holds and what noise"
            " would have to cover; leave it out"
        )
    if task.method.name not in _PLAIN_METHODS:
        raise ValueError(
            f"[compression] does not go with method.name = {task.method.name}, which does not send the same coordinates"
            " of the update in every round and nothing else; fedavg is the nearest that does"
        )
    if spec.kind is CompressionKind.SPARSE and task.round.combine != "weighted":
        raise ValueError("compression.kind = sparse needs round.combine = weighted: fitted goes with every rule")
