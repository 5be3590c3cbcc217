"""What the desktops' own tools say, read: pure functions over their output.

The outputs in the tests were recorded, or written down from the tools' manuals; of these only Linux was run here.
"""

import re
from typing import Final

_METERED: Final = frozenset({1, 3})  # NMMetered: yes, and guessed yes
_NANOSECONDS: Final = 1e9


def idle_from_logind(text: str, now_s: float) -> float | None:
    """Seconds without input by `loginctl show-user UID -p IdleHint -p IdleSinceHint -p Sessions`; None if nobody is in.

    logind hears of it from the desktop after that one's own delay, so a break of seconds counts as use.
    """
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if not values.get("Sessions") or "IdleHint" not in values:
        return None
    if values["IdleHint"] != "yes":
        return 0.0
    since = values.get("IdleSinceHint", "")
    return max(now_s - int(since) / 1e6, 0.0) if since.isdigit() else None


def active_window(text: str) -> str | None:
    """The window's id in `xprop -root _NET_ACTIVE_WINDOW`; None if there is none."""
    found = re.search(r"window id # (0x[0-9a-fA-F]+)", text)
    return found[1] if found and int(found[1], 16) else None


def fullscreen_program(text: str) -> str | None:
    """The program in `xprop -id ID _NET_WM_STATE WM_CLASS`, empty if it does not fill the screen; None if not told."""
    if "_NET_WM_STATE" not in text:
        return None
    if "_NET_WM_STATE_FULLSCREEN" not in text:
        return ""
    found = re.search(r'WM_CLASS.*= "([^"]*)"', text)
    return found[1] if found and found[1] else "a program"


def metered_from_networkmanager(text: str) -> bool | None:
    """`busctl get-property org.freedesktop.NetworkManager … Metered`, such as `u 4`; None if it does not say."""
    found = re.match(r"u (\d+)", text.strip())
    if found is None or found[1] == "0":
        return None
    return int(found[1]) in _METERED


def idle_from_ioreg(text: str) -> float | None:
    """Seconds without input by macOS's `ioreg -c IOHIDSystem -d 4`."""
    found = re.search(r'"HIDIdleTime" = (\d+)', text)
    return int(found[1]) / _NANOSECONDS if found else None


def metered_from_windows(text: str) -> bool | None:
    """The NetworkCostType of Windows' connection profile: Unrestricted, Fixed, Variable or Unknown."""
    cost = text.strip().lower()
    return cost in {"fixed", "variable"} if cost in {"fixed", "variable", "unrestricted"} else None
