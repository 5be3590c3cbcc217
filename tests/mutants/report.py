"""What the mutants came to: counts per module, and the change that each survivor made."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from .stage import STAGE

VERDICTS = {0: "survived", 1: "killed", 3: "killed", 5: "untested", 33: "untested", 36: "timed out", 24: "timed out"}
"""mutmut's exit codes (pytest's own, and its own 33 and 36) in words."""


def verdicts_of(folder: Path, modules: list[str]) -> dict[str, dict[str, str]]:
    """Return module → mutant → verdict; a mutant that was not run yet has the verdict «not run»."""
    found = {}
    for path in sorted(folder.glob("*.py.meta")):
        module = path.name.removesuffix(".py.meta")
        codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
        if codes and (not modules or module in modules):
            found[module] = {
                name: "not run" if code is None else VERDICTS.get(code, "killed") for name, code in codes.items()
            }
    return found


def change_of(mutant: str) -> str:
    """Return the lines that a mutant takes out and puts in."""
    show = [str(Path(sys.executable).with_name("mutmut")), "show", mutant]
    shown = subprocess.run(show, cwd=STAGE, capture_output=True, text=True, check=False).stdout
    lines = [line for line in shown.splitlines() if re.match(r"[-+](?![-+])", line)]
    return "\n".join(f"    {line}" for line in lines)


def print_report(folder: Path, modules: list[str]) -> None:
    """Print one line per module, then every survivor."""
    found = verdicts_of(folder, modules)
    columns = ("killed", "timed out", "survived", "untested", "not run")
    print(f"{'module':14}" + "".join(f"{column:>11}" for column in columns))
    for module, verdicts in found.items():
        counts = Counter(verdicts.values())
        print(f"{module:14}" + "".join(f"{counts[column]:>11}" for column in columns))
    total = Counter(verdict for verdicts in found.values() for verdict in verdicts.values())
    print(f"{'all':14}" + "".join(f"{total[column]:>11}" for column in columns))
    for verdicts in found.values():
        for name, verdict in verdicts.items():
            if verdict in ("survived", "untested"):
                print(f"\n{verdict}: {name}\n{change_of(name)}")
