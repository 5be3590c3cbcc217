"""Why there is no round for this device now, in words."""

from collections.abc import Callable
from typing import Final

from fedit_protocol.messages import CheckInReply, WaitReason

_Words = Callable[[CheckInReply], str]


def _in_general(_reply: CheckInReply) -> str:
    return "waiting for the server"


_REASONS: Final[dict[WaitReason, _Words]] = {
    WaitReason.GATHERING: lambda reply: (
        f"waiting for devices for round {reply.round_no + 1}: {reply.free_clients} of {reply.wanted_clients} are free"
    ),
    WaitReason.ROUND_RUNNING: lambda reply: f"round {reply.round_no} runs without this device; waiting for the next",
    WaitReason.NOT_SELECTED: lambda reply: f"other devices were drawn for round {reply.round_no}; waiting for the next",
    WaitReason.TOO_NEW: lambda _reply: (
        "this task takes devices only some time after they joined the federation; waiting until this one is old enough"
    ),
    WaitReason.ROUND_HELD: lambda reply: f"round {reply.round_no} waits for the organiser's decision; waiting",
    WaitReason.TASK_PAUSED: lambda _reply: "the organiser has paused the task; waiting",
}


def waiting_text(reply: CheckInReply) -> str:
    """Return what the owner reads while a device waits."""
    return _REASONS.get(reply.reason, _in_general)(reply) if reply.reason else _in_general(reply)
