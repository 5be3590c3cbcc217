"""Run mutmut over fedit_protocol/secagg: `python -m tests.mutants [MODULE ...] [--report]`.

Without a module name all are mutated. A module that was finished is not run again until its code changes.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from .report import print_report
from .stage import MUTATED, PACKAGE, STAGE, stage


def main() -> None:
    """Stage the code, run the mutants of the modules named, print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="names of modules in fedit_protocol/secagg, such as shamir")
    parser.add_argument("--report", action="store_true", help="only print what earlier runs found")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="mutants tested at the same time")
    options = parser.parse_args()
    if not options.report:
        run(options.modules, options.children)
    print_report(STAGE / "mutants" / MUTATED, options.modules)


def run(modules: list[str], children: int) -> None:
    """Let mutmut test the modules; raises SystemExit with its status where it cannot run."""
    mutmut = Path(sys.executable).with_name("mutmut")
    if not mutmut.exists():
        sys.exit("error: mutmut is not installed\n  fix: python -m pip install -c constraints.txt mutmut")
    names = [f"{PACKAGE}.secagg.{module}.*" for module in modules]
    # The staged copy must be the only one: neither the working tree nor an installed wheel may be found first.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(mutmut), "run", "--max-children", str(children), *names]
    done = subprocess.run(command, cwd=stage(), env={**environment, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
