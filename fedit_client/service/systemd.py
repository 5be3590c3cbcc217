"""A systemd user unit (systemd.service(5), systemd.exec(5))."""

import re
import shlex
from typing import Final

from fedit_client.service.plan import DESCRIPTION, INTERRUPTED, NAME, NEEDS_A_PERSON, ServicePlan

UNIT: Final = f"{NAME}.service"
_PLAIN: Final = re.compile(r"[A-Za-z0-9@_+=:,./-]+")


def unit(plan: ServicePlan) -> str:
    """Return the unit's text. It needs no privileges, and gives way to everything else."""
    memory = [f"MemoryMax={plan.max_memory_gb * 1e9:.0f}"] if plan.max_memory_gb else []
    lines = [
        "[Unit]",
        f"Description={DESCRIPTION}",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(quoted(word) for word in plan.command)}",
        "# A lost network or server is waited for inside; what needs a person is not tried again.",
        "Restart=on-failure",
        "RestartSec=60",
        f"RestartPreventExitStatus={' '.join(str(status) for status in NEEDS_A_PERSON)}",
        f"SuccessExitStatus={INTERRUPTED}",
        "# The client leaves its round and ends its worker; whatever is left after half a minute is killed.",
        "KillMode=mixed",
        "TimeoutStopSec=30",
        "Nice=10",
        "IOSchedulingClass=idle",
        *memory,
        "NoNewPrivileges=yes",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def words_of(text: str) -> list[str]:
    """Return the command line of a unit that `unit` has written; raises ValueError for another file."""
    line = next((line for line in text.splitlines() if line.startswith("ExecStart=")), "")
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line.removeprefix("ExecStart="))]


def quoted(word: str) -> str:
    """Return a word of ExecStart: no specifier, no variable, no second word comes of it."""
    safe = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return safe if _PLAIN.fullmatch(word) else f'"{safe}"'
