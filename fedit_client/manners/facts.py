"""What this machine is like at this moment, asked of psutil, NVML and the desktop's own tools. Nothing is sent.

Run on Linux, with an NVIDIA GPU that another program used; desktops, Windows and macOS stand behind recorded answers
(`desktop`, `windows`) and were not run yet.
What cannot be told is None, and no rule acts on it.
"""

import importlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from fedit_client.manners import desktop
from fedit_client.manners.rules import Facts, GpuUse
from fedit_client.manners.settings import PoliteSettings

_TOOL_S: Final = 2.0
_DISK_EVERY_S: Final = 600.0
_DESKTOP_EVERY_S: Final = 15.0
_SHELLS: Final = frozenset({"xorg", "xwayland", "gnome-shell", "kwin_x11", "kwin_wayland", "plasmashell", "dwm.exe"})
"""What draws the desktop holds GPU memory all the time, and is no reason to wait."""
_NETWORK_MANAGER: Final = (
    "busctl", "--system", "get-property", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager", "Metered",
)  # fmt: skip
_WINDOWS_COST: Final = (
    "powershell", "-NoProfile", "-Command",
    ("[void][Windows.Networking.Connectivity.NetworkInformation,Windows,ContentType=WindowsRuntime];"
    "[Windows.Networking.Connectivity.NetworkInformation]::GetInternetConnectionProfile()"
    ".GetConnectionCost().NetworkCostType"),
)  # fmt: skip


class FactSource(Protocol):
    """The seam to the machine; `fedit_client.testing.FakeFacts` is its fake."""

    def read(self, device: str) -> Facts:
        """Look now; `device` is what trains here, `cpu` or `cuda:N`. Called in a thread every few seconds."""
        ...


@dataclass
class MachineFacts:
    """The real machine. It looks only at what the settings ask for; `folders` are this client's own."""

    polite: PoliteSettings
    folders: tuple[Path, ...] = ()
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict)
    """What is dear to find out: when it was, and what came of it."""

    def read(self, device: str) -> Facts:
        """Look now; never raises for what this machine cannot tell."""
        polite = self.polite
        gpu = _gpu(int(device.partition(":")[2] or 0)) if device.startswith("cuda") else None
        return Facts(
            on_battery=_on_battery() if polite.on_battery == "pause" else None,
            gpu_others=gpu[0] if gpu and polite.gpu_busy == "pause" else None,
            fullscreen=self._now_and_then("screen", _DESKTOP_EVERY_S, _fullscreen)
            if polite.fullscreen == "pause"
            else None,
            idle_s=self._now_and_then("idle", _DESKTOP_EVERY_S, _idle_s) if polite.user_active != "ignore" else None,
            temperature_c=gpu[1] if gpu else _cpu_temperature_c(),
            sensor="GPU" if gpu else "CPU",
            metered=self._now_and_then("metered", _DESKTOP_EVERY_S, is_metered)
            if polite.metered_network == "pause"
            else None,
            disk_gb=self._now_and_then("disk", _DISK_EVERY_S, lambda: used_gb(self.folders)),
        )

    def _now_and_then(self, name: str, seconds: float, look: Any) -> Any:
        when, found = self._kept.get(name, (float("-inf"), None))
        if time.monotonic() - when >= seconds:
            found = look()
            self._kept[name] = time.monotonic(), found
        return found


def used_gb(folders: tuple[Path, ...]) -> float:
    """Return what lies in these folders, in GB of 10⁹ bytes; a folder inside another counts once."""
    roots = {folder for folder in folders if not any(other in folder.parents for other in folders)}
    total = 0
    for root in roots:
        for place, _, names in os.walk(root):
            for name in names:
                with suppress(OSError):
                    total += (Path(place) / name).lstat().st_size
    return total / 1e9


def others_on_gpu(
    processes: dict[int, float], ours: set[int], names: dict[int, str], share: float | None, used_mb: float | None
) -> GpuUse:
    """Return what others take of a GPU. Pure: `processes` is pid → MB, `used_mb` the device's own figure.

    Windows' WDDM tells no memory per process (NVML gives none); then all that is used counts, while nothing of ours can
    be on the GPU: the rule is looked at before a round, too.
    """
    foreign = {pid: memory for pid, memory in processes.items() if _is_foreign(pid, ours, names)}
    if processes or used_mb is None:
        largest = max(foreign, key=lambda pid: foreign[pid], default=None)
        return GpuUse(share, sum(foreign.values()), names.get(largest, "") if largest is not None else "")
    return GpuUse(share, 0.0 if _works(ours) else used_mb)


def _is_foreign(pid: int, ours: set[int], names: dict[int, str]) -> bool:
    """Inside a container NVML names processes by numbers of the host, ours too: such a one is a stranger only while we
    have no process that could be it."""
    if pid in ours:
        return False
    name = names.get(pid, "").lower()
    return name not in _SHELLS if name else not _works(ours)


def _works(ours: set[int]) -> bool:
    """Whether this client has started a process, which may be on the GPU."""
    return len(ours) > 1


def our_processes() -> set[int]:
    """This process and all that it has started."""
    me = psutil.Process()
    with suppress(psutil.Error):
        return {me.pid, *(child.pid for child in me.children(recursive=True))}
    return {me.pid}


def _on_battery() -> bool | None:
    """None on a desktop, which has no battery: it runs on mains."""
    with suppress(OSError, RuntimeError, AttributeError):  # AttributeError: psutil has no such sensor on this system
        battery = psutil.sensors_battery()
        return None if battery is None or battery.power_plugged is None else not battery.power_plugged
    return None


def _cpu_temperature_c() -> float | None:
    """The hottest sensor of the CPU itself; Linux only."""
    with suppress(OSError, AttributeError):
        sensors: dict[str, Any] = psutil.sensors_temperatures()
        seen = [
            float(one.current)
            for name in ("coretemp", "k10temp", "zenpower", "cpu_thermal")
            for one in sensors.get(name, [])
        ]
        return max(seen) if seen else None
    return None


def _gpu(index: int) -> tuple[GpuUse, float | None] | None:
    """What others do on a GPU, and how warm it is; None without NVML."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - its error class exists only after the import that may have failed
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        ours, processes = our_processes(), _gpu_processes(nvml, handle)
        with_memory = {pid: memory for pid, memory in processes.items() if memory is not None}
        names = {pid: _name(pid) for pid in processes}
        used = float(nvml.nvmlDeviceGetMemoryInfo(handle).used) / 1e6
        share = _share_of_others(nvml, handle, ours, names)
        use = others_on_gpu(with_memory, ours, names, share, used)
        return use, float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _gpu_processes(nvml: Any, handle: Any) -> dict[int, float | None]:
    found: dict[int, float | None] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with suppress(nvml.NVMLError):
            for one in ask(handle):
                found[one.pid] = None if one.usedGpuMemory is None else float(one.usedGpuMemory) / 1e6
    return found


def _share_of_others(nvml: Any, handle: Any, ours: set[int], names: dict[int, str]) -> float | None:
    """By process where the driver tells; else the whole device's while nothing of ours runs on it."""
    with suppress(nvml.NVMLError):
        samples = nvml.nvmlDeviceGetProcessUtilization(handle, int((time.time() - 5) * 1e6))
        newest: dict[int, int] = {sample.pid: sample.smUtil for sample in samples}
        return sum(busy for pid, busy in newest.items() if _is_foreign(pid, ours, names)) / 100
    if not _works(ours):
        with suppress(nvml.NVMLError):
            return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    return None


def _name(pid: int) -> str:
    with suppress(psutil.Error):
        return str(psutil.Process(pid).name())
    return ""


def _idle_s() -> float | None:
    if sys.platform == "win32":
        from fedit_client.manners.windows import idle_s

        return idle_s()
    if sys.platform == "darwin":
        return desktop.idle_from_ioreg(_said("ioreg", "-c", "IOHIDSystem", "-d", "4"))
    asked = ("loginctl", "show-user", str(os.getuid()), "-p", "IdleHint", "-p", "IdleSinceHint", "-p", "Sessions")
    return desktop.idle_from_logind(_said(*asked), time.time())


def _fullscreen() -> str | None:
    """On X11 and Windows; Wayland and macOS do not say."""
    if sys.platform == "win32":
        from fedit_client.manners.windows import fullscreen_program

        return fullscreen_program()
    if "DISPLAY" not in os.environ:
        return None
    window = desktop.active_window(_said("xprop", "-root", "_NET_ACTIVE_WINDOW"))
    return desktop.fullscreen_program(_said("xprop", "-id", window, "_NET_WM_STATE", "WM_CLASS")) if window else None


def is_metered() -> bool | None:
    """Say whether the network connection is metered; None where the system does not tell."""
    if sys.platform == "win32":
        return desktop.metered_from_windows(_said(*_WINDOWS_COST))
    if sys.platform == "linux":
        return desktop.metered_from_networkmanager(_said(*_NETWORK_MANAGER))
    return None


def _said(*command: str) -> str:
    """What a tool of the system prints; nothing if it is missing, slow or unhappy."""
    if shutil.which(command[0]) is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TOOL_S, check=False
        )
        return done.stdout if done.returncode == 0 else ""
    return ""
