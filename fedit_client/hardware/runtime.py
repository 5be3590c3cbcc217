"""The interpreter that trains: this one, or the one that `device.python` names, such as the one that `setup` made."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from fedit_client.installed import installed_version
from fedit_protocol.errors import DeviceError

STACK: Final = ("torch", "transformers", "peft", "bitsandbytes")
_ASK_S: Final = 20


def python_in(folder: Path) -> Path:
    """Return where an environment has its interpreter."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def packages_of(python: Path) -> list[str]:
    """Return the places where an interpreter looks for packages; raises DeviceError H007 if it does not start."""
    try:
        asked = [str(python), "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_ASK_S, check=True)
        return [str(place) for place in json.loads(done.stdout)]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DeviceError("the interpreter that should train does not start", code="H007", where=str(python),
                          fix="fedit-client setup") from error  # fmt: skip


def check_stack(python: Path | None = None) -> None:
    """Raise DeviceError H005 if the interpreter that trains lacks what training needs, or another version of FedIT.

    Looks, but imports nothing; DeviceError H007 also for an interpreter that does not start.
    """
    missing = [name for name in STACK if not _has(name, python)]
    if missing:
        raise DeviceError(
            f"training needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            code="H005",
            where=str(python or sys.executable),
            fix="fedit-client setup",
        )
    if python is not None and (found := version_in("fedit", python)) != installed_version():
        raise DeviceError(
            f"the interpreter that trains has FedIT {found or 'not at all'}, and this is {installed_version()}",
            code="H007",
            where=str(python),
            fix="fedit-client setup",
        )


def version_in(name: str, python: Path | None) -> str | None:
    """Return the version of a package that an interpreter has, or None."""
    path = sys.path if python is None else packages_of(python)
    found = next(iter(importlib.metadata.distributions(name=name, path=path)), None)
    return found.version if found else None


def _has(name: str, python: Path | None) -> bool:
    return importlib.util.find_spec(name) is not None if python is None else version_in(name, python) is not None
