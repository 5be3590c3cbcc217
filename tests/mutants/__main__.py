"""Run mutmut over fedit_protocol/secagg: `python -m tests.mutants [MODULE ...] [--report]`.

Without a module name all are mutated, one after the other. What was tested is not tested again until its code changes.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from .report import print_report
from .stage import modules, selection, stage


def main() -> None:
    """Mutate the modules named, print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="names of modules in fedit_protocol/secagg, such as shamir")
    parser.add_argument("--report", action="store_true", help="only print what earlier runs found")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="mutants tested at the same time")
    options = parser.parse_args()
    chosen = options.modules or modules()
    for module in chosen if not options.report else ():
        if selection(module):
            run(module, options.children)
    print_report(chosen)


def run(module: str, children: int) -> None:
    """Let mutmut test one module's mutants; raises SystemExit where it cannot run."""
    mutmut = Path(sys.executable).with_name("mutmut")
    if not mutmut.exists():
        sys.exit("error: mutmut is not installed\n  fix: python -m pip install -c constraints.txt mutmut")
    # The staged copy must be the only one: neither the working tree nor an installed wheel may be found first.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(mutmut), "run", "--max-children", str(children)]
    print(f"mutating {module}: {', '.join(selection(module))}", flush=True)
    done = subprocess.run(
        command,
        cwd=stage(module),
        env={**environment, "OMP_NUM_THREADS": "1"},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"error: mutmut ended with {done.returncode} for {module}\n{done.stdout[-2000:]}")


if __name__ == "__main__":
    main()
