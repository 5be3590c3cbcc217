"""What the owner's settings leave of a machine: memory of cores and GPUs, and room on the disk. Pure."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from fedit_client.hardware.machine import Machine
from fedit_client.manners.settings import PoliteSettings
from fedit_protocol.errors import DeviceError, FeditError

T = TypeVar("T")

_GB: Final = 1e9
_NO_MEMORY: Final = "H003"


class CappedError(FeditError):
    """The machine could, but its owner's settings do not leave enough of it: P003 memory, P004 disk, P005 network."""

    default_code = "P003"


def left_of(machine: Machine, polite: PoliteSettings) -> Machine:
    """Return the machine as far as training may have it: the reserve of each GPU and the rest of memory taken off."""
    reserve = round(polite.vram_reserve_gb * _GB)
    # 0 stands for a GPU that does not say how much it has, so at least a byte stays of the others.
    gpus = tuple(
        replace(gpu, free_bytes=max(min(gpu.free_bytes, gpu.total_bytes) - reserve, 1)) if gpu.total_bytes else gpu
        for gpu in machine.gpus
    )
    most = machine.free_bytes if polite.max_memory_gb is None else round(polite.max_memory_gb * _GB)
    return replace(machine, free_bytes=min(machine.free_bytes, most), gpus=gpus)


def within_memory(machine: Machine, polite: PoliteSettings, plan: Callable[[Machine], T]) -> T:
    """Return what `plan` makes of the machine within the settings; raises what it raises.

    Raises CappedError P003 where only the settings stand in the way, so that nobody looks for the memory elsewhere.
    """
    capped = left_of(machine, polite)
    try:
        return plan(capped)
    except DeviceError as error:
        if error.code != _NO_MEMORY or capped == machine:
            raise
        try:
            plan(machine)
        except DeviceError:
            raise error from None
        on_gpu = capped.gpus != machine.gpus
        key = "vram_reserve_gb" if on_gpu else "max_memory_gb"
        value = getattr(polite, key)
        raise CappedError(
            f"it would fit this machine, but not what your settings leave of it: {error}",
            where=f"polite.{key}={value:g}",
            fix=f"fedit-client set polite.{key}={0 if on_gpu else _enough_gb(machine)}",
        ) from error


def check_disk(used_gb: float, more_bytes: int, polite: PoliteSettings) -> None:
    """Raise CappedError P004 if fetching so much more goes over what this client may keep on the disk."""
    total_gb = used_gb + more_bytes / _GB
    if more_bytes and total_gb > polite.max_disk_gb:
        raise CappedError(
            f"with the base model, {more_bytes / _GB:.1f} GB, this client would keep {total_gb:.1f} GB on the disk",
            code="P004",
            where=f"polite.max_disk_gb={polite.max_disk_gb:g}",
            fix=f"fedit-client set polite.max_disk_gb={int(total_gb) + 1}",
        )


def check_network(more_bytes: int, polite: PoliteSettings, metered: Callable[[], bool | None]) -> None:
    """Raise CappedError P005 if so much would have to be fetched over a connection that is metered."""
    if more_bytes and polite.metered_network == "pause" and metered():
        raise CappedError(
            f"the base model has to be fetched, {more_bytes / _GB:.1f} GB, and the network connection is metered",
            code="P005",
            where="polite.metered_network=pause",
            fix="fedit-client set polite.metered_network=ignore, or another connection",
        )


def _enough_gb(machine: Machine) -> str:
    return f"{machine.free_bytes / _GB:.0f}"
