"""Two questions to Windows itself, through user32 and shell32. Written from Microsoft's documentation, not run yet."""

import ctypes
import sys
from typing import Any, Final

_BUSY: Final = {2: "a full-screen program", 3: "a full-screen game", 4: "a presentation"}
"""QUERY_USER_NOTIFICATION_STATE: QUNS_BUSY, QUNS_RUNNING_D3D_FULL_SCREEN, QUNS_PRESENTATION_MODE."""


class _LastInput(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("tick", ctypes.c_uint)]


def idle_s() -> float | None:
    """Seconds without mouse or keyboard in this session (GetLastInputInfo); None elsewhere than on Windows."""
    if sys.platform != "win32":
        return None
    windows: Any = ctypes.windll
    last = _LastInput(ctypes.sizeof(_LastInput), 0)
    if not windows.user32.GetLastInputInfo(ctypes.byref(last)):
        return None
    return float((windows.kernel32.GetTickCount() - last.tick) % 2**32) / 1000


def fullscreen_program() -> str | None:
    """What keeps Windows from showing notifications (SHQueryUserNotificationState); None elsewhere."""
    if sys.platform != "win32":
        return None
    windows: Any = ctypes.windll
    state = ctypes.c_int()
    if windows.shell32.SHQueryUserNotificationState(ctypes.byref(state)):
        return None
    return _BUSY.get(state.value, "")
