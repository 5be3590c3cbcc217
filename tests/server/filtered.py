"""What systemd's SystemCallFilter and RestrictAddressFamilies do to a program, without systemd running here.

`python -m tests.server.filtered FILTER.json PROGRAM…` loads the filter into this process and becomes the program. Names
of calls come from `systemd-analyze`, the filter from libseccomp, which systemd uses itself.
"""

import ctypes
import errno
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

LIBRARY: Final = "libseccomp.so.2"
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_EQUAL: Final = 4


class _Compared(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def filter_of(unit: str) -> dict[str, list[str]]:
    """Return the calls and address families that a unit leaves to its program."""
    allowed = calls("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        named: set[str] = set().union(*(calls(name) for name in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    (families,) = re.findall(r"^RestrictAddressFamilies=(.*)$", unit, re.MULTILINE)
    return {"calls": sorted(allowed), "families": families.split()}


def calls(name: str) -> set[str]:
    """Return the calls of a group, with those of the groups in it; a call is a group of its own."""
    if not name.startswith("@"):
        return {name}
    told = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    words = [line.strip() for line in told.stdout.splitlines()[1:]]
    return set().union(*(calls(word) for word in words if word and not word.startswith("#")))


def load(allowed: list[str], families: list[str]) -> None:
    """Refuse this process, and whatever it becomes, every other call with EPERM."""
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    made = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_REFUSE)))
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if name != "socket" and number >= 0:  # below: calls of other architectures
            _done(library.seccomp_rule_add(made, ctypes.c_uint32(_ALLOW), number, 0))
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        only = _Compared(0, _EQUAL, getattr(socket, family), 0)
        _done(library.seccomp_rule_add_array(made, ctypes.c_uint32(_ALLOW), number, 1, ctypes.byref(only)))
    _done(library.seccomp_load(made))


def _done(status: int) -> None:
    if status != 0:
        raise OSError(-status, os.strerror(-status))


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    load(wanted["calls"], wanted["families"])
    os.execvp(sys.argv[2], sys.argv[2:])
