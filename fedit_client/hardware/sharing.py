"""Whether several processes share a run on this machine: one for each GPU of the same kind, or parts of the CPU."""

from dataclasses import replace

from fedit_client.hardware.device import DevicePlan, Machine
from fedit_protocol.errors import DeviceError


def shared_by(plan: DevicePlan, machine: Machine, processes: int) -> DevicePlan:
    """Return the plan with the devices of the further processes, which the reason then names.

    A step goes at the pace of its slowest process, so GPUs have to be of one kind, each with the memory that one
    process needs. On the CPU they share its threads, which gains nothing but a test. Raises DeviceError H012.
    """
    if processes == 1:
        return plan
    if plan.device == "cpu":
        words = f"{plan.reason}; {processes} processes share each step"
        return replace(plan, others=("cpu",) * (processes - 1), threads=max(1, plan.threads // processes), reason=words)
    alike = [
        f"cuda:{gpu.index}"
        for gpu in machine.gpus
        if gpu.name == plan.name and gpu.free_bytes >= plan.estimated_bytes and f"cuda:{gpu.index}" != plan.device
    ]
    if not plan.device.startswith("cuda") or len(alike) < processes - 1:
        raise DeviceError(
            f"device.processes is {processes}, and {1 + len(alike)} GPU of this kind can be used",
            code="H012",
            where=plan.name,
            fix=f"fedit-client set device.processes={1 + len(alike)}",
        )
    others = tuple(alike[: processes - 1])
    words = f"{plan.reason}; {processes} GPUs share each step: {', '.join((plan.device, *others))}"
    return replace(plan, others=others, reason=words)
