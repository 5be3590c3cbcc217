"""What every worker does around its task: threads, priority, and errors that the parent can raise again."""

import sys
import traceback
from collections.abc import Callable

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.channel import Channel, Json, give_way
from fedit_client.training.quiet import quieten
from fedit_protocol.errors import DeviceError, FeditError
from fedit_protocol.task import Quantization

Work = Callable[[Channel, Json, DevicePlan], None]


def run(work: Work) -> None:
    """Take one request from the channel, do the work, and end with status 0, or 1 after telling what went wrong."""
    channel = Channel()
    request = channel.receive()
    if request.get("give_way", True):
        give_way()
    try:
        _attempt(work, channel, request)
    except FeditError as error:
        channel.send(
            "error", error=type(error).__name__, message=str(error), code=error.code, where=error.where, fix=error.fix
        )
        sys.exit(1)
    except Exception:  # noqa: BLE001 - the parent shows the last lines of stderr
        traceback.print_exc()
        sys.exit(1)


def _attempt(work: Work, channel: Channel, request: Json) -> None:
    plan = plan_of(request["plan"])
    try:
        quieten()
        import torch
    except ImportError as error:
        raise DeviceError(
            f"training needs {error.name}, which is not installed", code="H005", fix='pip install "fedit[train]"'
        ) from error
    torch.set_num_threads(plan.threads)
    from fedit_client.training.memory import is_out_of_memory

    try:
        work(channel, request, plan)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(plan) from error


def plan_of(values: Json) -> DevicePlan:
    """Return the plan that crossed the pipe."""
    changed = {"quantization": Quantization(values["quantization"]), "others": tuple(values["others"])}
    changed |= {"other_classes": tuple(map(Quantization, values.get("other_classes", ())))}
    return DevicePlan(**{**values, **changed})


def out_of_memory(plan: DevicePlan) -> DeviceError:
    """Return the error that says so, with the plan's figures."""
    return DeviceError(
        f"out of memory: {plan.estimated_bytes / 1e9:.1f} GB were expected to be enough, "
        f"{plan.available_bytes / 1e9:.1f} GB were free",
        code="H003",
        where=plan.device,
        fix="close other programs, or take part from a larger machine",
    )
