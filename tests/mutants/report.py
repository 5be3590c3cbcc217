"""What the mutants came to: counts per module, and the change that each survivor made unless it is explained."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from .explained import why_harmless
from .stage import STAGES, mutated

VERDICTS = {0: "survived", 1: "killed", 3: "killed", 5: "untested", 33: "untested", 36: "timed out", 24: "timed out"}
"""mutmut's exit codes (pytest's own, and its own 33 and 36) in words."""


def verdicts_of(module: str) -> dict[str, str]:
    """Return mutant → verdict; a mutant that was not run yet has the verdict «not run»."""
    meta = STAGES / module / "mutants" / f"{mutated(module)}.meta"
    codes = json.loads(meta.read_text("utf-8"))["exit_code_by_key"] if meta.exists() else {}
    return {name: "not run" if code is None else VERDICTS.get(code, "killed") for name, code in codes.items()}


def change_of(module: str, mutant: str) -> str:
    """Return the lines that a mutant takes out and puts in."""
    show = [str(Path(sys.executable).with_name("mutmut")), "show", mutant]
    shown = subprocess.run(show, cwd=STAGES / module, capture_output=True, text=True, check=False).stdout
    lines = [line for line in shown.splitlines() if re.match(r"[-+](?![-+])", line)]
    return "\n".join(f"    {line}" for line in lines)


def judged(module: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return mutant → verdict, survivors with a reason being `explained`; and the changes of the other survivors."""
    verdicts, changes = verdicts_of(module), {}
    for mutant, verdict in verdicts.items():
        if verdict == "survived":
            changes[mutant] = change_of(module, mutant)
            if why_harmless(module, changes[mutant]):
                verdicts[mutant] = "explained"
                del changes[mutant]
    return verdicts, changes


def print_report(modules: list[str]) -> None:
    """Print one line per module, then every survivor that nothing explains, and what no test even ran."""
    columns = ("killed", "timed out", "explained", "survived", "untested", "not run")
    found = {module: judged(module) for module in modules}
    print(f"{'module':16}" + "".join(f"{column:>11}" for column in columns))
    total = Counter[str]()
    for module, (verdicts, _) in found.items():
        counts = Counter(verdicts.values())
        total += counts
        print(f"{module:16}" + "".join(f"{counts[column]:>11}" for column in columns))
    print(f"{'all':16}" + "".join(f"{total[column]:>11}" for column in columns))
    for module, (verdicts, changes) in found.items():
        for mutant, change in changes.items():
            print(f"\nsurvived: {mutant}\n{change}")
        for mutant in (name for name, verdict in verdicts.items() if verdict == "untested"):
            print(f"\nuntested: {mutant}\n{change_of(module, mutant)}")
