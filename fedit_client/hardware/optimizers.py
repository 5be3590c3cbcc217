"""Which optimizer a device uses for what a task asks, and what its owner is told. Pure: no torch."""

from fedit_protocol.task import Optimizer

_PAGING = ("cuda",)
_EIGHT_BITS = ("cuda", "xpu", "cpu")


def usable(wanted: Optimizer, device: str) -> tuple[Optimizer, str]:
    """Return the optimizer that a device (torch's name) has for this wish, and what to tell; nothing if it is the same.

    Paging needs unified memory, which bitsandbytes has on CUDA and ROCm alone (torch calls both cuda); what is not
    paged counts the same to the last bit. Where there is no kernel for 8 bits, the moments stay in float32: more
    memory, nothing less exact.
    """
    kind = device.partition(":")[0]
    if wanted is Optimizer.PAGED_ADAMW_8BIT and kind not in _PAGING and kind in _EIGHT_BITS:
        return Optimizer.ADAMW_8BIT, f"the optimizer keeps its state in 8 bits, not paged: there is no paging on {kind}"
    if wanted is not Optimizer.ADAMW and kind not in _EIGHT_BITS:
        return Optimizer.ADAMW, f"the optimizer keeps its state in float32: there is no 8-bit one on {kind}"
    return wanted, ""
